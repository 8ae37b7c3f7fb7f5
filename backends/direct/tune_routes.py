"""Measure each region against torch's int8 operators and against float operators."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.backends.direct.region import Region
from quantfx.backends.direct.routes import float_graph, region_key
from quantfx.backends.direct.taken import is_int8_product
from quantfx.backends.direct.tuned import RouteTimes, remember

# Rounds at most, in a row without a better time, and at least: one disturbance decides nothing.
ROUNDS = 60
_QUIET = 10
_FEW = 3
# A better time is less than so much of the least; what takes so many times as long as the least is
# hopeless: at first, and after some rounds.
_BETTER = 0.98
_HOPELESS_AT_FIRST, _HOPELESS = 4.0, 2.0

Clock = Callable[[], float]
OtherRoute = Callable[[GraphModule], GraphModule]
Call = tuple[Region, tuple[Tensor, ...]]


def measure_routes(
    calls: Sequence[Call], other: OtherRoute | None, until: float, clock: Clock = time.monotonic
) -> list[RouteTimes]:
    """Return the times of each kind of region, which are remembered.

    Regions that compute the same on the same shapes, as those of a transformer's layers do, are
    measured once.

    Args:
        calls: Regions with what they are given.
        other: Lowers the graph of a region to torch's int8 operators; None where these may not
            have it.
        until: When to stop, by ``clock``.
        clock: Seconds.
    """
    kinds: dict[str, Call] = {}
    for region, inputs in calls:
        kinds.setdefault(region_key(region.graph), (region, inputs))
    found: dict[str, RouteTimes] = {}
    for number, (key, call) in enumerate(kinds.items()):
        share = (until - clock()) / (len(kinds) - number)
        found[key] = _measure(call, other, clock() + share, clock)
    remember(torch.get_num_threads(), found)
    return list(found.values())


def _measure(call: Call, other: OtherRoute | None, until: float, clock: Clock) -> RouteTimes:
    region, inputs = call
    floats = float_graph(region.graph)
    given = [x if x.is_floating_point() else x.float() for x in inputs]
    runs = {"plan": lambda: region(*inputs), "floats": lambda: floats(*given)}
    if other is not None:
        operators = other(region.graph)
        runs["operators"] = lambda: operators(*inputs)
    with torch.no_grad():
        least = race(runs, until, clock)
    times = {route: spent * 1e6 for route, spent in least.items()}
    return RouteTimes(_name(region.graph), times["plan"], times.get("operators"), times["floats"])


def _name(graph: GraphModule) -> str:
    """Return the first and the last site of a region."""
    sites = [node.name for node in graph.graph.nodes if is_int8_product(node)]
    return sites[0] if len(sites) == 1 else f"{sites[0]} to {sites[-1]}"


def race(
    runs: Mapping[str, Callable[[], object]], until: float, clock: Clock = time.monotonic
) -> dict[str, float]:
    """Return the least seconds of a call of each, which take turns.

    It ends where ten rounds brought no better time; what takes four times as long as the fastest
    runs no more, nor does what takes twice as long after three rounds.

    Args:
        runs: By name.
        until: When to stop, by ``clock``; each has three timed calls at least.
        clock: Seconds.
    """
    for run in runs.values():
        run()  # packs weights, allocates
    least = dict.fromkeys(runs, float("inf"))
    racing, quiet = list(runs), 0
    for turn in range(ROUNDS):
        better = False
        for name in racing:
            if turn >= _FEW and clock() > until:
                return least
            start = clock()
            runs[name]()
            spent = clock() - start
            better |= spent < _BETTER * least[name]
            least[name] = min(spent, least[name])
        quiet = 0 if better else quiet + 1
        hopeless = (_HOPELESS if turn + 1 >= _FEW else _HOPELESS_AT_FIRST) * min(least.values())
        racing = [name for name in racing if least[name] < hopeless]
        if quiet >= _QUIET or len(racing) == 1:
            return least
    return least
