"""Run engines in turns on one model, and collect their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.breakdown import Breakdown
from quantfx.tools.bench.engine import Engine, EngineError, EngineUnavailable
from quantfx.tools.bench.results import Comparison, Measured, Missed, Settings
from quantfx.tools.bench.session import Built, Worker

_BREAKDOWN_REPEATS = 11

Start = Callable[[Engine], Worker]
Announce = Callable[[str], None]


def compare(
    model: str,
    engines: Sequence[Engine],
    settings: Settings,
    start: Start,
    *,
    announce: Announce,
    broken_down: Sequence[str] = (),
) -> Comparison:
    """Build every engine, one after another, then time them all in turns.

    An engine that fails at any point gets a row that says why.

    Args:
        model: Name of the model, for the result and for announcements.
        engines: In the order of the rows.
        settings: Rounds and calls.
        start: Gives an engine its worker.
        announce: Called with the progress.
        broken_down: The engines whose time is to be broken down.

    Raises:
        WorkloadError: the model itself cannot be loaded.
    """
    missed: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    built: dict[str, Built] = {}
    breakdowns: dict[str, Breakdown | str] = {}
    with ExitStack() as stack:
        for engine in engines:
            announce(f"{model}: building {engine.name}")
            try:
                worker = start(engine)
                stack.callback(worker.close)
                built[engine.name] = worker.build()
                workers[engine.name] = worker
            except EngineError as error:
                missed[engine.name] = _reason(error)
        seconds = take_turns(workers, settings, missed, lambda text: announce(f"{model}: {text}"))
        peaks = _peaks(workers, missed)
        for name in broken_down:
            announce(f"{model}: breaking down {name}")
            breakdowns[name] = _breakdown(name, workers, missed)

    def row(engine: Engine) -> Measured | Missed:
        name, title = engine.name, engine.title
        if name in missed:
            return Missed(name, title, missed[name])
        cost, accuracy = built[name].seconds, built[name].accuracy
        return Measured(name, title, cost, accuracy, peaks[name], tuple(seconds[name]))

    return Comparison(model, tuple(row(engine) for engine in engines), breakdowns)


def take_turns(
    workers: dict[str, Worker], settings: Settings, missed: dict[str, str], announce: Announce
) -> dict[str, list[float]]:
    """Return the seconds of one call: for each engine a list with one entry per round.

    Each round starts with another engine, so that none always follows the same one.

    Args:
        workers: Workers by engine; a failing worker is removed.
        settings: Rounds and calls.
        missed: Receives the reasons of failures, by engine.
        announce: Called before every round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(-1, settings.rounds):  # round -1 is the warm-up
        calls = settings.calls if turn >= 0 else settings.warmup
        announce(f"round {turn + 1} of {settings.rounds}")
        names = list(workers)
        first = turn % len(names) if names else 0
        for name in names[first:] + names[:first]:
            try:
                spent = workers[name].turn(calls)
            except EngineError as error:
                missed[name] = _reason(error)
                workers.pop(name).close()
                continue
            if turn >= 0:
                seconds[name].append(spent / calls)
    return seconds


def _peaks(workers: dict[str, Worker], missed: dict[str, str]) -> dict[str, int]:
    peaks: dict[str, int] = {}
    for name in list(workers):
        try:
            peaks[name] = workers[name].peak_bytes()
        except EngineError as error:
            missed[name] = _reason(error)
            workers.pop(name).close()
    return peaks


def _breakdown(engine: str, workers: dict[str, Worker], missed: dict[str, str]) -> Breakdown | str:
    if engine not in workers:
        return missed.get(engine, f"skipped: '{engine}' is not among the engines")
    try:
        return workers[engine].breakdown(_BREAKDOWN_REPEATS)
    except QuantfxError as error:
        return f"failed: {error}"


def _reason(error: EngineError) -> str:
    verb = "skipped" if isinstance(error, EngineUnavailable) else "failed"
    return f"{verb}: {error}"
