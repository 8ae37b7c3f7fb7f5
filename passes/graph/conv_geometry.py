"""Strides, padding and groups of a convolution, written out for each dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch.fx import Node

from quantfx.patterns.schema import argument_value, arguments, overload


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input.

    Attributes:
        kernel: Size of the kernel in each spatial dimension, dilation left out.
        stride: In each dimension.
        padding: Zeros at both ends of each dimension, ``(front, back)``.
        dilation: In each dimension.
        groups: Number of groups.
        output_padding: In each dimension; None if the convolution is not transposed.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...] | None = None

    @classmethod
    def of(cls, node: Node, kernel: tuple[int, ...]) -> Geometry:
        """Return the geometry of the convolution ``node`` with a kernel of the given size.

        Padding ``same`` puts the odd element of a total ``extent - 1`` at the end, as torch does.
        """
        rank = len(kernel)
        dilation = per_dimension(argument_value(node, "dilation"), rank)
        given = argument_value(node, "padding")
        if isinstance(given, str):
            same = given == "same"
            totals = [d * (k - 1) if same else 0 for d, k in zip(dilation, kernel, strict=True)]
            padding = tuple((total // 2, total - total // 2) for total in totals)
        else:
            padding = tuple((each, each) for each in per_dimension(given, rank))
        name = "output_padding"
        has_output = name in arguments(overload(node))
        return cls(
            kernel,
            per_dimension(argument_value(node, "stride"), rank),
            padding,
            dilation,
            argument_value(node, "groups"),
            per_dimension(argument_value(node, name), rank) if has_output else None,
        )

    @property
    def flat(self) -> Geometry:
        """The same geometry with one more leading dimension, of size 1."""
        return replace(
            self,
            kernel=(1, *self.kernel),
            stride=(1, *self.stride),
            padding=((0, 0), *self.padding),
            dilation=(1, *self.dilation),
        )

    @property
    def extent(self) -> tuple[int, ...]:
        """Size of the dilated kernel in each dimension."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def is_even(self) -> bool:
        """Whether padding is equal at both ends; kernels support nothing else."""
        return all(front == back for front, back in self.padding)

    @property
    def front(self) -> list[int]:
        """The padding in front of each dimension, which says everything if padding is even."""
        return [front for front, _ in self.padding]

    @property
    def ends(self) -> list[int]:
        """The padding as ``constant_pad_nd`` wants it: last dimension first."""
        return [each for pair in reversed(self.padding) for each in pair]


def per_dimension(value: Any, rank: int) -> tuple[int, ...]:
    """Return one number per dimension for an argument that may be a single number."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * rank if len(values) == 1 else values
