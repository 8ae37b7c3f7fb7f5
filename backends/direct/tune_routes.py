"""Measure each region against torch's int8 operators and against float operators."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.backends.direct.region import Region
from quantfx.backends.direct.routes import float_graph
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.backends.direct.taken import is_int8_product
from quantfx.backends.direct.tuned import RouteTimes, remember, routes_for
from quantfx.patterns.errors import QuantfxError

# Rounds: at most, in a row without a better time, and at least, so that no single disturbance
# decides.
ROUNDS = 60
_QUIET_ROUNDS = 10
_LEAST_ROUNDS = 3
_LAST_CALLS = 3
# A better time is below this share of the least. A route that takes this many times as long as the
# fastest leaves after the quiet rounds; a hopeless one after the least number.
_BETTER = 0.98
_SLOW, _HOPELESS = 2.5, 10.0

Clock = Callable[[], float]
OtherRoute = Callable[[GraphModule], GraphModule]
Call = tuple[Region, tuple[Tensor, ...]]


def measure_routes(
    kinds: Mapping[str, Call], other: OtherRoute | None, until: float, clock: Clock = time.monotonic
) -> list[RouteTimes]:
    """Measure and save the times of each kind of region.

    Args:
        kinds: One region of each kind with its inputs, by ``region_key``.
        other: Lowers the graph of a region to torch's int8 operators; None if these may not take
            it.
        until: Time by ``clock`` when to stop.
        clock: Returns seconds.

    Raises:
        QuantfxError: the times cannot be saved, or another route fails.
    """
    found: dict[str, RouteTimes] = {}
    for number, (key, call) in enumerate(kinds.items()):
        share = (until - clock()) / (len(kinds) - number)
        found[key] = _measure(call, other, clock() + share, clock)
    threads = torch.get_num_threads()
    kept = dict(found)
    if other is None:  # earlier times of torch's operators are still valid
        for key, known in routes_for(threads).items():
            if key in kept:
                kept[key] = kept[key]._replace(operators=known.operators)
    remember(threads, kept)
    return list(found.values())


def _measure(call: Call, other: OtherRoute | None, until: float, clock: Clock) -> RouteTimes:
    name = _name(call[0].graph)
    try:
        with torch.no_grad():
            least = race(_routes(*call, other), until, clock)
    except (Untranslatable, RuntimeError) as error:
        raise QuantfxError(
            f"another route of the region {name} fails: {error}", rule="graph-fails", site=name
        ) from error
    times = {route: spent * 1e6 for route, spent in least.items()}
    return RouteTimes(name, times["plan"], times.get("operators"), times["floats"])


def _routes(
    region: Region, inputs: tuple[Tensor, ...], other: OtherRoute | None
) -> dict[str, Callable[[], object]]:
    floats = float_graph(region.graph, [layout_of(x) for x in inputs])
    integers = (torch.uint8, torch.int8)
    given = [x.float() if x.dtype in integers else x for x in inputs]
    runs: dict[str, Callable[[], object]] = {
        "plan": lambda: region(*inputs),
        "floats": lambda: floats(*given),
    }
    if other is not None:
        operators = other(region.graph)
        runs["operators"] = lambda: operators(*inputs)
    return runs


def _name(graph: GraphModule) -> str:
    """Return the first and last sites of a region."""
    sites = [node.name for node in graph.graph.nodes if is_int8_product(node)]
    return sites[0] if len(sites) == 1 else f"{sites[0]} to {sites[-1]}"


def race(
    runs: Mapping[str, Callable[[], object]], until: float, clock: Clock = time.monotonic
) -> dict[str, float]:
    """Return the least seconds of a call of each run, in turns.

    Turns end after ten rounds without a better time. A run ten times as slow as the fastest leaves
    after three rounds, one 2.5 times as slow after ten. A run that is less behind gets three more
    calls at the end, so that no disturbance decides.

    Args:
        runs: Runs by name.
        until: Time by ``clock`` when to stop; each run gets at least three timed calls.
        clock: Returns seconds.
    """
    for run in runs.values():
        run()  # packs weights, allocates
    least = dict.fromkeys(runs, float("inf"))
    _take_turns(runs, least, until, clock)
    fastest = min(least, key=least.__getitem__)
    near = [name for name in runs if name != fastest and least[name] < _SLOW * least[fastest]]
    for name in near * _LAST_CALLS:
        least[name] = min(_seconds(runs[name], clock), least[name])
    return least


def _take_turns(
    runs: Mapping[str, Callable[[], object]],
    least: dict[str, float],
    until: float,
    clock: Clock,
) -> None:
    racing, quiet = list(runs), 0
    for turn in range(1, ROUNDS + 1):
        better = False
        for name in racing:
            if turn > _LEAST_ROUNDS and clock() > until:
                return
            spent = _seconds(runs[name], clock)
            better |= spent < _BETTER * least[name]
            least[name] = min(spent, least[name])
        quiet = 0 if better else quiet + 1
        if turn >= _LEAST_ROUNDS:
            slow = _SLOW if turn >= _QUIET_ROUNDS else _HOPELESS
            racing = [name for name in racing if least[name] < slow * min(least.values())]
        if quiet >= _QUIET_ROUNDS or len(racing) == 1:
            return


def _seconds(run: Callable[[], object], clock: Clock) -> float:
    start = clock()
    run()
    return clock() - start
