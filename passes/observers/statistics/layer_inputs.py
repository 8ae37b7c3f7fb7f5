"""Second moments of the inputs that a layer multiplies its weight with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

LARGEST_BLOCK = 1024
# Most held-out patches that are kept per layer, and most values in all groups together.
MOST_HELD, MOST_HELD_VALUES = 1024, 2**20


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """Moments of the patches that a convolution or linear multiplies its weight with.

    A patch x of one group has ``K = in_per_group * kernel`` values, in the order of
    ``weight[0].flatten()``. It is cut into ``blocks = ceil(K / 1024)`` of B values, the last padded
    with zeros; moments between values of different blocks are not kept.

    Every fourth sample of a call is held out of the moments, or every fourth patch if a call has
    fewer than four samples. Some of these patches are kept unchanged, so that choices made by the
    moments are judged on other data.

    Attributes:
        gram: float32, ``(groups * blocks, B, B)``: the mean of ``x x^T`` of each block.
        mean: float32, ``(groups, K)``: the mean of x.
        rows: Number of patches in these moments, per group; 0 in a branch that never ran.
        held: float32, ``(groups, S, K)``: held-out patches.
    """

    gram: Tensor
    mean: Tensor
    rows: int
    held: Tensor

    @property
    def covariance(self) -> Tensor:
        """``gram`` minus the products of the means, same shape."""
        size = self.gram.shape[1]
        mean = pad(self.mean.double(), (0, -self.mean.shape[1] % size)).reshape(-1, size)
        return self.gram - mean.unsqueeze(2) * mean.unsqueeze(1)

    def mean_output(self, weight: Tensor) -> Tensor:
        """Return the mean output of ``weight`` on the patches, float64, ``(out,)``.

        Args:
            weight: ``(out, in_per_group, *kernel)``.
        """
        return (self._by_group(weight) * self.mean.double().unsqueeze(1)).sum(2).flatten()

    def held_outputs(self, weight: Tensor) -> Tensor:
        """Return the outputs of ``weight`` on the held-out patches, float64, ``(out, S)``."""
        return (self._by_group(weight) @ self.held.double().transpose(1, 2)).flatten(0, 1)

    def divided_by(self, divisor: Tensor) -> LayerInputs:
        """Return the moments of ``x / divisor``.

        Args:
            divisor: Positive, ``(K,)``; patches may have one block or more.
        """
        factor = 1 / divisor.double()
        size = self.gram.shape[1]
        cut = pad(factor, (0, -len(factor) % size)).reshape(-1, size)
        gram = self.gram * (cut.unsqueeze(2) * cut.unsqueeze(1))
        mean, held = self.mean * factor, self.held * factor
        return LayerInputs(gram.float(), mean.float(), self.rows, held.float())

    def _by_group(self, weight: Tensor) -> Tensor:
        return weight.double().reshape(len(self.mean), -1, self.mean.shape[1])

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
        held = thinned(torch.cat([part.held for part in parts], 1))
        return LayerInputs((gram / rows).float(), (mean / rows).float(), rows, held)


def thinned(held: Tensor) -> Tensor:
    """Halve the patches, keeping every second, until no more than the limit are left."""
    return held[:, :: thinning(held)]


def thinning(held: Tensor) -> int:
    """Return the power of two by which to thin the patches."""
    groups, rows, length = held.shape
    step = 1
    while (left := -(-rows // step)) > MOST_HELD or (
        left > 1 and left * groups * length > MOST_HELD_VALUES
    ):
        step *= 2
    return step


def block_sizes(length: int) -> tuple[int, int]:
    """Return how many blocks a patch of ``length`` values is cut into, and their size."""
    blocks = -(-length // LARGEST_BLOCK)
    return blocks, -(-length // blocks)
