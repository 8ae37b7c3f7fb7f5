"""Take operators out of a graph while it still shows a fault."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.bisection.graph_builder import random_tensor
from quantfx.bisection.search import Budget, smallest
from quantfx.bisection.slices import Argument, Slice, Stored, Whole

# Tensors of more elements are not written as literals.
INLINE = 64
_RADIUS = 4

Shows = Callable[[GraphModule, tuple[Tensor, ...]], str]


@dataclass(frozen=True)
class RandomTensor:
    """The arguments of ``random_tensor``."""

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    seed: int


@dataclass(frozen=True)
class Shrunk:
    """The smallest graph that was found.

    Attributes:
        graph: The lines of the graph.
        message: The fault that it shows.
        random: Random tensors that do as well, by the name of their line.
        evaluations: Number of graphs tried.
    """

    graph: Slice
    message: str
    random: dict[str, RandomTensor]
    evaluations: int


def shrink(whole: Whole, shows: Shows, *, near: Iterable[str], budget: int) -> Shrunk | None:
    """Return the smallest part of a graph that shows the fault; None if the whole shows none.

    1. With ``near``: as few operators around it as possible
    2. ddmin over the operators that are left
    3. Random tensors in place of large ones: all at once, or one by one

    Args:
        whole: The whole graph.
        shows: Returns the fault that a graph shows for these inputs; empty if it shows none.
        near: Names of nodes where to look first.
        budget: Most graphs to try in the second step.
    """
    tried = _Tried(whole, shows)
    units = _around(whole, tried, list(near)) or whole.units
    if not tried.shows(units):
        return None
    kept, _ = smallest(units, tried.shows, Budget(budget))
    found = whole.slice(kept)
    assert found is not None, "it shows the fault"
    found, random = _randomized(found, tried)
    return Shrunk(found, tried.message(found), random, tried.count)


class _Tried:
    def __init__(self, whole: Whole, shows: Shows) -> None:
        self._whole = whole
        self._shows = shows
        self._known: dict[frozenset[Node], bool] = {}
        self.count = 0

    def shows(self, kept: Collection[Node]) -> bool:
        key = frozenset(kept)
        if key not in self._known:
            graph = self._whole.slice(kept)
            self._known[key] = graph is not None and bool(self.message(graph))
        return self._known[key]

    def message(self, graph: Slice) -> str:
        self.count += 1
        return self._shows(*graph.build())


def _around(whole: Whole, tried: _Tried, near: list[str]) -> list[Node]:
    for radius in range(_RADIUS + 1 if near else 0):
        units = whole.near(near, radius)
        if units and tried.shows(units):
            return units
    return []


def _randomized(graph: Slice, tried: _Tried) -> tuple[Slice, dict[str, RandomTensor]]:
    """Return the graph with random tensors where the fault stays."""
    large = [
        line
        for line in graph.lines
        if isinstance(line, (Argument, Stored))
        and line.value.numel() > INLINE
        and not line.value.is_complex()
        and bool(line.value.isfinite().all())
    ]
    random = {line.name: _random_like(line.value, seed) for seed, line in enumerate(large)}
    everything = _with_random(graph, random)
    if random and tried.message(everything):
        return everything, random
    chosen: dict[str, RandomTensor] = {}
    for name, each in random.items() if len(random) > 1 else ():
        if tried.message(_with_random(graph, chosen | {name: each})):
            chosen[name] = each
    return _with_random(graph, chosen), chosen


def _random_like(value: Tensor, seed: int) -> RandomTensor:
    dtype = str(value.dtype).removeprefix("torch.")
    low, high = float(value.min()), float(value.max())
    return RandomTensor(tuple(value.shape), dtype, low, high, seed)


def _with_random(graph: Slice, random: dict[str, RandomTensor]) -> Slice:
    lines = [
        replace(line, value=_made(random[line.name], line.value))
        if isinstance(line, (Argument, Stored)) and line.name in random
        else line
        for line in graph.lines
    ]
    return Slice(tuple(lines), graph.results)


def _made(random: RandomTensor, like: Tensor) -> Tensor:
    return random_tensor(random.shape, like.dtype, random.low, random.high, random.seed)
