"""Measure each region against torch's int8 operators and against float operators."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.backends.direct.race import Clock, race
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.routes import float_graph, region_key
from quantfx.backends.direct.taken import is_int8_product
from quantfx.backends.direct.tuned import RouteTimes, remember

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
