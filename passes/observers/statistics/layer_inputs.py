"""Second moments of what a layer multiplies its weight with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """Moments of the patches that a convolution or linear multiplies its weight with.

    A patch x of one group has ``K = in_per_group * kernel`` values, in the order of
    ``weight[0].flatten()``. It is cut into ``blocks = ceil(K / 1024)`` of B values, the last filled
    up with zeros; what values of different blocks have in common is not kept.

    Attributes:
        gram: float32, ``(groups * blocks, B, B)``: the mean of ``x x^T`` of each block.
        mean: float32, ``(groups, K)``: the mean of x.
        rows: Patches that were seen, of each group; 0 in a branch that never ran.
    """

    gram: Tensor
    mean: Tensor
    rows: int

    @staticmethod
    def merge(parts: Sequence[LayerInputs]) -> LayerInputs:
        """Return the moments of all parts' patches; ``parts`` holds at least one."""
        rows = sum(part.rows for part in parts)
        if len(parts) == 1 or not rows:
            return parts[0]
        gram = torch.zeros_like(parts[0].gram, dtype=torch.float64)
        mean = torch.zeros_like(parts[0].mean, dtype=torch.float64)
        for part in parts:
            gram += part.gram.double() * part.rows
            mean += part.mean.double() * part.rows
        return LayerInputs((gram / rows).float(), (mean / rows).float(), rows)


def block_sizes(length: int) -> tuple[int, int]:
    """Return how many blocks a patch of ``length`` values is cut into, and their size."""
    blocks = -(-length // LARGEST_BLOCK)
    return blocks, -(-length // blocks)
