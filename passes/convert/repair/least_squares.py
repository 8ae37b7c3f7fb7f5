"""The integers of a weight that keep a layer's outputs, rather than its weights, the nearest.

With ``D`` the error of a channel's weights and ``H`` the second moments of what they multiply, the
channel's output errs by ``D H D^T`` in the mean square. Rounding one weight after the other, and
making up for each error in those still to come, is much nearer to the least of it than rounding
each to the nearest integer (Frantar et al. 2022, GPTQ, arXiv 2210.17323, algorithm 1, which follows
from optimal brain surgery).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from quantfx.passes.quant.qparams import PAIR_LIMIT
from quantfx.passes.quant.spec import QuantSpec

_COLUMNS = 64  # rounded before the weights behind them are corrected, by one matrix product


@dataclass(frozen=True)
class Moments:
    """What rounding goes by.

    Attributes:
        second: Second moments of the inputs, ``(groups * blocks, B, B)``.
        damping: Share of the mean diagonal that is added to the diagonal: without it, weights
            follow chance where little was seen.
    """

    second: Tensor
    damping: float


def round_together(steps: Tensor, moments: Moments, spec: QuantSpec) -> Tensor:
    """Return integers, float64, of the shape of ``steps``.

    No two neighbours that ``spec`` bounds exceed the bound inside a block of inputs.

    Args:
        steps: The weight in steps of its scale, ``(out, in_per_group, *kernel)``.
        moments: Of the inputs, in blocks of ``steps[0].flatten()``.
        spec: Range and pair bound of the integers.
    """
    groups_and_blocks, size = moments.second.shape[:2]
    length = steps[0].numel()
    blocks = -(-length // size)
    groups = groups_and_blocks // blocks
    rows = steps.double().reshape(groups, -1, length)
    rows = pad(rows, (0, blocks * size - length))
    rows = rows.reshape(groups, -1, blocks, size).transpose(1, 2).flatten(0, 1)
    factor = _factor(moments)
    starts = (torch.arange(len(rows), device=rows.device) % blocks) * size
    found = _round(rows, factor, _Pairs.of(steps, spec, starts))
    found = found.reshape(groups, blocks, -1, size).transpose(1, 2).flatten(2)
    return found[:, :, :length].reshape(steps.shape)


def _factor(moments: Moments) -> Tensor:
    """Return the upper Cholesky factor of the inverse, float64."""
    second = moments.second.double()
    mean = second.diagonal(dim1=1, dim2=2).mean(1)
    # Where nothing was seen, any diagonal will do: each weight is rounded on its own.
    added = torch.where(mean > 0, moments.damping * mean, 1.0)
    eye = torch.eye(second.shape[1], dtype=second.dtype, device=second.device)
    while True:
        damped = second + added[:, None, None] * eye
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not bool(failed.any()):
            upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
            return upper
        # Moments less the products of means may lie below zero by what float32 lost of them.
        added = torch.where(failed > 0, 10 * added, added)


@dataclass(frozen=True)
class _Pairs:
    """Which integers are bounded together.

    Attributes:
        spec: Range and pair bound.
        distance: How far left of a weight its neighbour is; 0 where pairs are not bounded.
        starts: Place of the first weight of each block in its channel, ``(batch,)``.
    """

    spec: QuantSpec
    distance: int
    starts: Tensor

    @classmethod
    def of(cls, steps: Tensor, spec: QuantSpec, starts: Tensor) -> _Pairs:
        """Return the pairs of a weight ``(out, in_per_group, *kernel)``."""
        bounded = spec.pair_bound != "none" and steps.dim() > 1
        return cls(spec, steps[0, 0].numel() if bounded else 0, starts)

    def limits(self, found: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest integer of a column, ``(batch, channels)`` each.

        Args:
            found: The integers of the columns before, ``(batch, channels, B)``.
            column: Its place in the blocks.
        """
        low = torch.full_like(found[:, :, 0], self.spec.quant_min)
        high = torch.full_like(low, self.spec.quant_max)
        if not self.distance or column < self.distance:
            return low, high
        left = found[:, :, column - self.distance]
        if self.spec.pair_bound == "blocks":  # of two neighbours the second: it has a left one
            second = (self.starts + column) // self.distance % 2 == 1
            left = torch.where(second.unsqueeze(1), left, 0)
        low = torch.where(left < 0, torch.maximum(low, -PAIR_LIMIT - left), low)
        high = torch.where(left > 0, torch.minimum(high, PAIR_LIMIT - left), high)
        return low, high


def _round(rows: Tensor, factor: Tensor, pairs: _Pairs) -> Tensor:
    """Round ``(batch, channels, B)`` column by column; see ``round_together``."""
    rows = rows.clone()
    found = torch.zeros_like(rows)
    for start in range(0, rows.shape[2], _COLUMNS):
        stop = min(start + _COLUMNS, rows.shape[2])
        errors = torch.zeros_like(rows[:, :, start:stop])
        for column in range(start, stop):
            low, high = pairs.limits(found, column)
            value = rows[:, :, column]
            integer = torch.minimum(torch.maximum(value.round(), low), high)
            found[:, :, column] = integer
            pivot = factor[:, column, column, None]
            error = (value - integer) / pivot
            errors[:, :, column - start] = error
            behind = factor[:, column, column + 1 : stop]
            rows[:, :, column + 1 : stop] -= error.unsqueeze(2) * behind.unsqueeze(1)
        rows[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return found
