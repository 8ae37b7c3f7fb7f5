"""A sample of the calibration inputs, unchanged: repairs run the model on them again."""

from __future__ import annotations

import inspect
import math
from bisect import bisect_left
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.inputs.leaves import leaves_of
from quantfx.passes.observers.statistics.digests import call_digest

# A hundred photographs of 224 x 224 pixels.
MOST_SAMPLED = 2**26
_ROWS, _SAMPLE = "quantfx_sample_rows", "quantfx_sample"

Leaves = tuple[Any, ...]
"""Inputs of one call, one per placeholder: tensors, numbers, texts or None."""


class Sample:
    """Keeps the calls with the smallest digests: calls from all over the data, in any order.

    It keeps as many calls as fit into ``MOST_SAMPLED`` bytes and can be stored in a file. The
    choice depends only on the data, not on its order, and a repeated call counts once.

    Args:
        most_rows: Number of rows that suffices; None for no such limit.
    """

    def __init__(self, most_rows: int | None = None) -> None:
        self._most_rows = most_rows
        self._kept: list[tuple[str, Leaves]] = []
        self._end: str | None = None  # the smallest digest without room

    @property
    def pairs(self) -> tuple[tuple[str, Leaves], ...]:
        """Digests and calls, the smallest digest first."""
        return tuple(self._kept)

    @property
    def calls(self) -> tuple[Leaves, ...]:
        """The kept calls, smallest digest first."""
        return tuple(call for _, call in self._kept)

    def add(self, digest: str, call: Leaves) -> None:
        """Keep a copy of ``call`` if its digest is small enough."""
        if self._end is not None and digest >= self._end:
            return
        if not all(map(_can_be_stored, call)):
            self._cut(bisect_left(self._kept, digest, key=_digest), digest)
            return
        place = bisect_left(self._kept, digest, key=_digest)
        if place < len(self._kept) and self._kept[place][0] == digest:
            return
        copy = tuple(x.detach().clone() if isinstance(x, Tensor) else x for x in call)
        self._kept.insert(place, (digest, copy))
        room, rows = MOST_SAMPLED, 0
        for number, (each, kept) in enumerate(self._kept):
            room -= sum(leaf.nbytes for leaf in kept if isinstance(leaf, Tensor))
            if room < 0 or (self._most_rows is not None and rows >= self._most_rows):
                self._cut(number, each)
                return
            rows += rows_of(kept)

    def _cut(self, count: int, end: str) -> None:
        del self._kept[count:]
        self._end = end


def first_rows(calls: Iterable[Leaves], rows: int) -> tuple[Leaves, ...]:
    """Return the first ``calls`` that have ``rows`` rows together, or all of them."""
    found: list[Leaves] = []
    count = 0
    for call in calls:
        if count >= rows:
            break
        found.append(call)
        count += rows_of(call)
    return tuple(found)


def rows_of(call: Leaves) -> int:
    """Return the first dimension of the first tensor with dimensions; 1 if there is none."""
    return next((len(each) for each in call if isinstance(each, Tensor) and each.dim()), 1)


def want_sample(prepared: GraphModule, rows: int) -> None:
    """Let calibration of ``prepared`` keep copies of some inputs, about ``rows`` rows."""
    prepared.meta[_ROWS] = rows


def sample_of(prepared: GraphModule) -> tuple[Leaves, ...]:
    """Return the inputs that calibration kept with ``prepared``."""
    return tuple(call for _, call in pairs_of(prepared))


def pairs_of(prepared: GraphModule) -> tuple[tuple[str, Leaves], ...]:
    """Return these inputs with their digests."""
    return tuple(prepared.meta.get(_SAMPLE, ()))


def set_pairs(prepared: GraphModule, pairs: Iterable[tuple[str, Leaves]]) -> None:
    """Store what ``pairs_of`` returned with another module with the same inputs."""
    prepared.meta[_SAMPLE] = tuple(pairs)


def drop_sample(module: GraphModule) -> None:
    """Drop the sample of ``module``."""
    for key in (_ROWS, _SAMPLE):
        module.meta.pop(key, None)


@contextmanager
def keeping_sample(prepared: GraphModule) -> Generator[None]:
    """Keep copies of some inputs of calls to ``prepared``, if requested."""
    wanted: int | None = prepared.meta.get(_ROWS)
    if wanted is None:
        yield
        return
    signature = inspect.signature(prepared.forward)
    sample = Sample(wanted)
    for pair in pairs_of(prepared):
        sample.add(*pair)

    def keep(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves = leaves_of(signature, args, kwargs)
        sample.add(call_digest(leaves), tuple(leaf for _, leaf in leaves))

    hook = prepared.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        set_pairs(prepared, sample.pairs)


def _digest(pair: tuple[str, Leaves]) -> str:
    return pair[0]


def _can_be_stored(leaf: object) -> bool:
    """Whether a file can hold ``leaf``: JSON has no infinity."""
    if isinstance(leaf, Tensor):
        return leaf.layout == torch.strided
    is_plain = leaf is None or isinstance(leaf, (bool, int, float, str))
    return is_plain and not (isinstance(leaf, float) and not math.isfinite(leaf))
