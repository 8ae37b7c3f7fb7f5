"""``quantfx bench``: engines side by side on named models and on the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.engine import Engine
from quantfx.tools.bench.engines import BROKEN_DOWN, DEFAULT, choose_engines
from quantfx.tools.bench.process import ProcessWorker
from quantfx.tools.bench.results import BenchReport, Comparison, Settings
from quantfx.tools.bench.results_file import to_json, to_svg
from quantfx.tools.bench.session import Worker
from quantfx.tools.bench.table import legend, parts_of
from quantfx.tools.bench.turns import compare
from quantfx.tools.bench.workload import require_workload
from quantfx.tools.measure.machine import this_machine

_WARMUP = 5

# Maps engine, model, batch and threads to a worker.
StartWorker = Callable[[Engine, str, int, int], Worker]


@dataclass(frozen=True)
class Request:
    """The request of the command line.

    Attributes:
        models: Names, or the user's ``package.module:function``.
        engines: Names; the baseline is added if missing.
        rounds: Rounds, in each of which every engine has one turn.
        calls: Timed calls per turn.
        batch: Rows of a batch of a named model.
        threads: Threads of every engine; None for torch's number.
        json: File for all measurements.
        chart: File for the bar chart.
        breakdown: Whether to break down the time of ``quantfx``.
    """

    models: Sequence[str]
    engines: Sequence[str] = DEFAULT
    rounds: int = 15
    calls: int = 5
    batch: int = 1
    threads: int | None = None
    json: Path | None = None
    chart: Path | None = None
    breakdown: bool = False


def run(
    request: Request, console: Console | None = None, start: StartWorker = ProcessWorker
) -> BenchReport:
    """Measure, print tables and write the requested files.

    Args:
        request: What to measure.
        console: Where to print; by default standard output.
        start: Makes the workers; by default each in its own process.

    Raises:
        QuantfxError: an unknown name, a number below 1, or a model that cannot be loaded.
    """
    console = console or Console()
    settings = _settings(request)
    broken_down = [engine.name for engine in BROKEN_DOWN] if request.breakdown else []
    names = [*request.engines, *broken_down]
    engines = choose_engines(names)
    for model in request.models:
        require_workload(model)
    comparisons: list[Comparison] = []
    with console.status("starting") as status:
        for model in request.models:
            comparison = compare(
                model,
                engines,
                settings,
                partial(_start, start, model, settings),
                announce=status.update,
                broken_down=broken_down,
            )
            for part in parts_of(comparison):
                console.print(part, markup=False, highlight=False)
            comparisons.append(comparison)
    report = BenchReport(this_machine(), settings, tuple(comparisons))
    console.print(legend(report), markup=False, highlight=False)
    for path, to_text in ((request.json, to_json), (request.chart, to_svg)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(to_text(report), encoding="utf-8")
            console.print(f"written: {path}", markup=False, highlight=False)
    return report


def _start(start: StartWorker, model: str, settings: Settings, engine: Engine) -> Worker:
    return start(engine, model, settings.batch, settings.threads)


def _settings(request: Request) -> Settings:
    threads = torch.get_num_threads() if request.threads is None else request.threads
    for name, number in (
        ("--rounds", request.rounds),
        ("--calls", request.calls),
        ("--batch", request.batch),
        ("--threads", threads),
    ):
        if number < 1:
            raise QuantfxError(
                f"{name} must be at least 1, got {number}", rule="number-range", site=name
            )
    if not request.models:
        raise QuantfxError(
            "no model", rule="no-model", fix="name one, or give your own with --model"
        )
    return Settings(
        rounds=request.rounds,
        calls=request.calls,
        warmup=_WARMUP,
        threads=threads,
        batch=request.batch,
    )
