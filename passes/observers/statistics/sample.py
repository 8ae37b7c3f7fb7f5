"""Some of the inputs that calibration sees, as they are: repairs run the model on them again."""

from __future__ import annotations

import inspect
import math
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
"""Tensors, numbers, texts or None: what the placeholders of a graph get in one call."""


class Sample:
    """Keeps the first calls, as many as ``MOST_SAMPLED`` bytes and a file hold.

    Args:
        most_rows: Enough; a call that comes again then counts once. None for no such limit.

    Attributes:
        calls: What is kept.
        rows: First dimension of the first tensor, summed over them.
    """

    def __init__(self, most_rows: int | None = None) -> None:
        self.calls: list[Leaves] = []
        self.rows = 0
        self._most_rows = most_rows
        self._room = MOST_SAMPLED
        self._seen: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether nothing more will be kept."""
        return self._room < 0 or (self._most_rows is not None and self.rows >= self._most_rows)

    def add(self, call: Leaves) -> bool:
        """Keep ``call`` if there is room, and say whether it was."""
        if self.is_full:
            return False
        if all(map(_can_be_stored, call)):
            self._room -= sum(each.nbytes for each in call if isinstance(each, Tensor))
        else:
            self._room = -1
        if self._room < 0:
            return False
        if self._most_rows is not None:
            digest = call_digest(("", leaf) for leaf in call)
            if digest in self._seen:
                return False
            self._seen.add(digest)
        self.calls.append(call)
        self.rows += rows_of(call)
        return True


def sampled(calls: Iterable[Leaves], most_rows: int | None = None) -> tuple[Leaves, ...]:
    """Return the calls that a `Sample` keeps."""
    sample = Sample(most_rows)
    for call in calls:
        sample.add(call)
    return tuple(sample.calls)


def rows_of(call: Leaves) -> int:
    """Return the first dimension of the first tensor that has one; 1 if there is none."""
    return next((len(each) for each in call if isinstance(each, Tensor) and each.dim()), 1)


def copied(call: Leaves) -> Leaves:
    """Return a call with tensors of its own."""
    return tuple(x.detach().clone() if isinstance(x, Tensor) else x for x in call)


def want_sample(prepared: GraphModule, rows: int) -> None:
    """Let calibration keep copies of the first inputs with ``prepared``, about ``rows`` rows."""
    prepared.meta[_ROWS] = rows


def sample_of(prepared: GraphModule) -> tuple[Leaves, ...]:
    """Return the inputs that calibration kept with ``prepared``."""
    return tuple(prepared.meta.get(_SAMPLE, ()))


def set_sample(prepared: GraphModule, calls: Iterable[Leaves]) -> None:
    """Keep ``calls`` with ``prepared``."""
    prepared.meta[_SAMPLE] = tuple(calls)


def drop_sample(module: GraphModule) -> None:
    """Let go of the sample of ``module``."""
    for key in (_ROWS, _SAMPLE):
        module.meta.pop(key, None)


@contextmanager
def keeping_sample(prepared: GraphModule) -> Generator[None]:
    """Keep copies of the first inputs of calls to ``prepared``, if they are wanted."""
    wanted: int | None = prepared.meta.get(_ROWS)
    if wanted is None:
        yield
        return
    signature = inspect.signature(prepared.forward)
    sample = Sample(wanted)
    for call in sample_of(prepared):
        sample.add(call)

    def keep(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if sample.is_full:
            hook.remove()
        elif sample.add(call := tuple(leaf for _, leaf in leaves_of(signature, args, kwargs))):
            sample.calls[-1] = copied(call)

    hook = prepared.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        set_sample(prepared, sample.calls)


def _can_be_stored(leaf: object) -> bool:
    """Whether a file takes ``leaf``: JSON has no infinity."""
    if isinstance(leaf, Tensor):
        return leaf.layout == torch.strided
    is_plain = leaf is None or isinstance(leaf, (bool, int, float, str))
    return is_plain and not (isinstance(leaf, float) and not math.isfinite(leaf))
