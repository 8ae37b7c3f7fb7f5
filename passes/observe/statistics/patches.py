"""The patches that a convolution or linear multiplies its weight with, as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn.functional import pad

from quantfx.passes.graph.conv_geometry import Geometry
from quantfx.passes.graph.graphs import constant
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observers.statistics.layer_inputs import block_sizes
from quantfx.patterns.schema import resolve_op

LINEAR = resolve_op("aten.linear.default")
CONVOLUTIONS = frozenset(
    resolve_op(f"aten.conv{rank}d.{overload}")
    for rank in (1, 2, 3)
    for overload in ("default", "padding")
)
# Patches taken per call: this many for each value in a block, within these bounds. A few calls give
# moments of full rank, and the work stays close to the layer's own.
ROWS_PER_VALUE = 4
LEAST_ROWS, LARGEST_ROWS = 256, 4096


@dataclass(frozen=True)
class Patches:
    """How an operator cuts its input: equal values cut equally.

    Attributes:
        length: Values in a patch of one group.
        geometry: Geometry of a convolution; None for a linear.
        most: Maximum number of patches per call; None for the default of `largest`.
    """

    length: int
    geometry: Geometry | None = None
    most: int | None = None

    @classmethod
    def of(cls, module: GraphModule, node: Node) -> Patches | None:
        """Return how ``node`` cuts; None unless it is such an operator with a stored weight."""
        if node.target is not LINEAR and node.target not in CONVOLUTIONS:
            return None
        weight = constant(module, read_slot(node, "weight"))
        return None if weight is None else cls.of_weight(node, weight.shape)

    @classmethod
    def of_weight(cls, node: Node, shape: Sequence[int], most: int | None = None) -> Patches:
        """Return how a convolution or linear cuts.

        Args:
            node: The call.
            shape: Shape of its weight.
            most: See the attribute.
        """
        is_linear = node.target is LINEAR
        geometry = None if is_linear else Geometry.of(node, tuple(shape[2:]))
        return cls(math.prod(shape[1:]), geometry, most)

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return 1 if self.geometry is None else self.geometry.groups

    @property
    def largest(self) -> int:
        """The maximum number of patches per call."""
        if self.most is not None:
            return self.most
        _, size = block_sizes(self.length)
        return min(LARGEST_ROWS, max(LEAST_ROWS, ROWS_PER_VALUE * size))

    def cut(self, x: Tensor, offset: int) -> tuple[Tensor, Tensor]:
        """Return patches of ``x``, float32, ``(groups, rows, length)``, and the sample of each row.

        If there are more than ``largest``, every n-th is taken, starting at ``offset``. n has no
        common factor with the number of patches, or each call would see the same columns.
        """
        if self.geometry is None:
            rows = x.reshape(-1, x.shape[-1])
            picked = self._picked(len(rows), offset, x.device)
            samples = picked // (len(rows) // len(x)) if x.dim() > 1 else picked
            return rows[picked].float().unsqueeze(0), samples
        return self._windows(x, self.geometry, offset)

    def _picked(self, rows: int, offset: int, device: torch.device) -> Tensor:
        step = max(1, -(-rows // self.largest))
        while math.gcd(step, rows) > 1:
            step += 1
        return torch.arange(offset % step, rows, step, device=device)

    def _windows(self, x: Tensor, geometry: Geometry, offset: int) -> tuple[Tensor, Tensor]:
        rank = len(geometry.kernel)
        x = x if x.dim() == rank + 2 else x.unsqueeze(0)
        x = pad(x, geometry.ends) if any(geometry.ends) else x
        sides = [
            (size - extent) // stride + 1
            for size, extent, stride in zip(
                x.shape[2:], geometry.extent, geometry.stride, strict=True
            )
        ]
        rest = self._picked(len(x) * math.prod(sides), offset, x.device)
        places: list[Tensor] = []
        for axis in reversed(range(rank)):
            start = rest % sides[axis] * geometry.stride[axis]
            taps = torch.arange(geometry.kernel[axis], device=x.device) * geometry.dilation[axis]
            shape = [len(rest)] + [1] * rank
            shape[axis + 1] = len(taps)
            places.insert(0, (start[:, None] + taps).reshape(shape))
            rest = rest // sides[axis]
        samples = rest.reshape([-1] + [1] * rank)
        picked = x.movedim(1, -1)[(samples, *places)]  # (rows, *kernel, channels)
        rows = picked.movedim(-1, 1).float().reshape(len(picked), geometry.groups, -1)
        return rows.transpose(0, 1), rest
