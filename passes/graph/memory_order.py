"""The order in which the dimensions of a tensor lie in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quantfx.patterns.sizes import likely


def memory_order(value: Tensor) -> list[int] | None:
    """Return the dimensions, outermost first; None if memory has gaps or repeated elements."""
    if value.layout is not torch.strided:
        return None
    sizes = [likely(size, 2) for size in value.shape]
    if 0 in sizes or value.is_contiguous():
        return list(range(value.dim()))
    strides = [likely(stride, 1) for stride in value.stride()]
    # A dimension of one element may have any stride and does not matter: it is put outermost.
    order = sorted(range(value.dim()), key=lambda axis: (sizes[axis] != 1, -strides[axis], axis))
    dense = dense_strides(sizes, order)
    fits = all(sizes[axis] == 1 or strides[axis] == dense[axis] for axis in order)
    return order if fits else None


def dense_strides(sizes: Sequence[int], order: Sequence[int]) -> list[int]:
    """Return the strides of a dense tensor whose dimensions lie in that order."""
    strides = [1] * len(sizes)
    step = 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(sizes[axis], 1)
    return strides
