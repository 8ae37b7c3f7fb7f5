"""The tensors of a plan: buffers, and strided views of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Place = Literal["arena", "input", "output", "constant"]


@dataclass(eq=False)
class Buffer:
    """The memory of one tensor; buffers may share arena memory one after another.

    Attributes:
        size: Bytes.
        place: ``arena`` of the call, an ``input`` or ``output``, or a ``constant``.
        index: Number of the input or output.
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
        buffer: Its buffer.
        layout: Tensor on device meta: shape, strides, offset and dtype in memory.
        scale: The value of one integer step.
        zero_point: The integer that stands for 0.
        shift: Difference of integers in memory to the graph's: 128 for int8, which is stored as
            uint8, because convolutions of int8 round weights to 7 bits on CPUs without VNNI.
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
        """Return another view of the same memory."""
        return replace(self, layout=layout)


def layout_of(tensor: Tensor) -> Tensor:
    """Return the layout of a tensor, with offset 0."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def in_order(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return the layout of a contiguous tensor."""
    return torch.empty(shape, dtype=dtype, device="meta")


def channels_last(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return the layout with channels (dimension 1) contiguous."""
    batch, channels, *places = shape
    made = torch.empty((batch, *places, channels), dtype=dtype, device="meta")
    return made.movedim(-1, 1)


def same_order(layout: Tensor, other: Tensor) -> bool:
    """Whether two layouts of one shape place each element alike."""
    strides = zip(layout.shape, layout.stride(), other.stride(), strict=True)
    return all(size == 1 or one == two for size, one, two in strides)


def is_dense(layout: Tensor) -> bool:
    """Whether the elements fill a block of memory, in any order of dimensions."""
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
