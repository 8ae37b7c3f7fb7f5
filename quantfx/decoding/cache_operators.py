"""The operators ``quantfx::read_cache`` and ``quantfx::grow_cache``, on a past in int8.

Inductor does not look into them: its code for int8 on AVX2 moves eight bytes at a time, and takes
five to thirty times as long as torch's own loops for the same copies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.graph.own_operators import define

LARGEST = 127  # symmetric: -128 is not used


def to_int8(values: Tensor, scale: Tensor) -> Tensor:
    """Return ``values`` in steps of ``scale``, rounded and saturated."""
    return (values / scale).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)


def _read(past: Tensor, new: Tensor | None, scale: Tensor, axis: int) -> Tensor:
    """Return ``cat(past * scale, new)`` in float32, contiguous."""
    made = past.new_empty(_shape(past, new, axis), dtype=torch.float32)
    size = past.shape[axis]
    made.narrow(axis, 0, size).copy_(past).mul_(scale)
    if new is not None:
        made.narrow(axis, size, new.shape[axis]).copy_(new)
    return made


def _grow(past: Tensor, new: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Return ``cat(past, new / scale)`` in int8, contiguous."""
    made = past.new_empty(_shape(past, new, axis))
    size = past.shape[axis]
    made.narrow(axis, 0, size).copy_(past)
    made.narrow(axis, size, new.shape[axis]).copy_(to_int8(new, scale))
    return made


def _shape(past: Tensor, new: Tensor | None, axis: int) -> list[int]:
    shape = list(past.shape)
    if new is not None:
        shape[axis] += new.shape[axis]
    return shape


def _fake_read(past: Tensor, new: Tensor | None, scale: Tensor, axis: int) -> Tensor:
    return past.new_empty(_shape(past, new, axis), dtype=torch.float32)


def _fake_grow(past: Tensor, new: Tensor, scale: Tensor, axis: int) -> Tensor:
    return past.new_empty(_shape(past, new, axis))


READ = define(
    "read_cache(Tensor past, Tensor? new, Tensor scale, int axis) -> Tensor",
    _read,
    _fake_read,
    key="CompositeExplicitAutograd",
)
GROW = define(
    "grow_cache(Tensor past, Tensor new, Tensor scale, int axis) -> Tensor",
    _grow,
    _fake_grow,
    key="CompositeExplicitAutograd",
)
