"""Where the tensors of a plan are: buffers, and the strided looks into them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Place = Literal["arena", "input", "output", "constant"]


@dataclass(eq=False)
class Buffer:
    """Memory of one tensor, several of which share the arena one after another.

    Attributes:
        size: Bytes.
        place: ``arena`` of the call, an ``input`` or ``output``, or a ``constant``.
        index: Which input or output.
        constant: The tensor, if it is one.
    """

    size: int
    place: Place = "arena"
    index: int = 0
    constant: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor in a buffer; integers are bytes from 0 to 255.

    Attributes:
        buffer: Where it is.
        layout: On device meta: shape, strides, offset and dtype of what is in memory.
        scale: What one step of an integer stands for.
        zero_point: The integer that stands for 0.
        shift: By how much integers in memory are larger than the graph's: 128 for int8, which
            convolutions on CPUs without VNNI would round to 7 bits. As uint8 they are exact.
    """

    buffer: Buffer
    layout: Tensor
    scale: float = 1.0
    zero_point: int = 0
    shift: int = 0

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers."""
        return not self.layout.dtype.is_floating_point

    def seen_as(self, layout: Tensor) -> Value:
        """Return another look into the same memory."""
        return replace(self, layout=layout)


def layout_of(tensor: Tensor) -> Tensor:
    """Return where the elements of a tensor lie, counted from the first."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def in_order(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return the layout of a contiguous tensor."""
    return torch.empty(shape, dtype=dtype, device="meta")


def channels_last(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return the layout with the channels, dimension 1, next to each other."""
    batch, channels, *places = shape
    made = torch.empty((batch, *places, channels), dtype=dtype, device="meta")
    return made.movedim(-1, 1)


def same_order(layout: Tensor, other: Tensor) -> bool:
    """Whether two layouts of one shape put each element at the same place."""
    strides = zip(layout.shape, layout.stride(), other.stride(), strict=True)
    return all(size == 1 or one == two for size, one, two in strides)


def is_dense(layout: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, in any order of dimensions."""
    used = sorted(
        (stride, size)
        for size, stride in zip(layout.shape, layout.stride(), strict=True)
        if size != 1
    )
    expected = 1
    for stride, size in used:
        if stride != expected:
            return False
        expected *= size
    return True


def byte_size(layout: Tensor) -> int:
    """Return the bytes from the first to the last element of a layout without offset."""
    if not layout.numel():
        return 0
    last = sum(
        (size - 1) * stride for size, stride in zip(layout.shape, layout.stride(), strict=True)
    )
    return (last + 1) * layout.element_size()
