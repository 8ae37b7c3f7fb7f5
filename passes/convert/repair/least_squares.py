"""Find the integers of a weight that keep a layer's outputs, rather than its weights, nearest.

Let ``D`` be the error of a channel's weights and ``H`` the second moments of their inputs. Then the
channel's output errs by ``D H D^T`` in the mean square. Rounding weights one after the other, and
compensating each error in the weights that follow, comes much closer to the minimum than rounding
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

_COLUMNS = 32  # rounded before later weights are corrected by one matrix product


@dataclass(frozen=True)
class Moments:
    """The moments that rounding uses.

    Attributes:
        second: Second moments of the inputs, ``(groups * blocks, B, B)``.
        damping: Share of the mean diagonal that is added to the diagonal: without it, weights
            follow chance where there is little data.
    """

    second: Tensor
    damping: float


def round_together(
    steps: Tensor, moments: Moments, spec: QuantSpec, scale: Tensor | None = None
) -> Tensor:
    """Return integers as float64, in the shape of ``steps``.

    Inside a block of inputs, no two neighbours that ``spec`` bounds exceed the bound.

    Args:
        steps: The weight in steps of its scale, ``(out, in_per_group, *kernel)``.
        moments: Moments of the inputs, in blocks of ``steps[0].flatten()``.
        spec: Range and pair bound of the integers.
        scale: The scale of each weight, in the shape of ``steps``; None if the weights of a channel
            share one.
    """
    groups_and_blocks, size = moments.second.shape[:2]
    length = steps[0].numel()
    blocks = -(-length // size)
    groups = groups_and_blocks // blocks

    def in_blocks(values: Tensor, fill: float) -> Tensor:
        rows = values.double().reshape(groups, -1, length)
        rows = pad(rows, (0, blocks * size - length), value=fill)
        return rows.reshape(groups, -1, blocks, size).transpose(1, 2).flatten(0, 1)

    rows = in_blocks(steps, 0.0)
    scales = None if scale is None else in_blocks(scale, 1.0).permute(2, 0, 1)
    factor = _factor(moments)
    starts = (torch.arange(len(rows), device=rows.device) % blocks) * size
    found = _round(rows, scales, factor, _Pairs.of(steps, spec, starts, size))
    found = found.reshape(groups, blocks, -1, size).transpose(1, 2).flatten(2)
    return found[:, :, :length].reshape(steps.shape)


def _factor(moments: Moments) -> Tensor:
    """Return the upper Cholesky factor of the inverse, float64."""
    second = moments.second.double()
    mean = second.diagonal(dim1=1, dim2=2).mean(1)
    # Without data any diagonal will do: each weight is rounded separately.
    added = torch.where(mean > 0, moments.damping * mean, 1.0)
    eye = torch.eye(second.shape[1], dtype=second.dtype, device=second.device)
    while True:
        damped = second + added[:, None, None] * eye
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not bool(failed.any()):
            upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
            return upper
        # Moments minus products of means may be slightly negative by float32 rounding.
        added = torch.where(failed > 0, 10 * added, added)


@dataclass(frozen=True)
class _Pairs:
    """The pairs of integers that are bounded together.

    Attributes:
        spec: Range and pair bound.
        distance: How many places to the left the neighbour of a weight is; 0 if pairs are not
            bounded.
        bounded: 1 where a weight has a neighbour to its left that bounds it, else 0,
            ``(B, batch, 1)``.
    """

    spec: QuantSpec
    distance: int
    bounded: Tensor

    @classmethod
    def of(cls, steps: Tensor, spec: QuantSpec, starts: Tensor, size: int) -> _Pairs:
        """Return the pairs of a weight ``(out, in_per_group, *kernel)``.

        Args:
            steps: The weight.
            spec: Its range and pair bound.
            starts: Index of each block's first weight in its channel, ``(batch,)``.
            size: Number of a channel's weights in a block.
        """
        is_bounded = spec.pair_bound != "none" and steps.dim() > 1
        distance = steps[0, 0].numel() if is_bounded else 0
        column = torch.arange(size, device=steps.device).reshape(-1, 1, 1)
        bounded = (column >= distance).expand(size, len(starts), 1)
        if distance and spec.pair_bound == "blocks":  # the second of two neighbours has a left one
            bounded = bounded & ((starts.reshape(1, -1, 1) + column) // distance % 2 == 1)
        return cls(spec, distance, bounded.to(torch.float64))

    def rounded(self, value: Tensor, found: Tensor, column: int) -> Tensor:
        """Return the nearest integers within the bounds, ``(batch, channels)``.

        Args:
            value: The column in steps of its scale.
            found: The integers of the columns before, ``(B, batch, channels)``.
            column: Index of the column in the blocks.
        """
        nearest = value.round()
        if self.distance and column >= self.distance:
            # A left value of 0 does not restrict the weight: its own range is within the bound.
            left = found[column - self.distance] * self.bounded[column]
            nearest = torch.clamp(nearest, -PAIR_LIMIT - left, PAIR_LIMIT - left)
        return nearest.clamp_(self.spec.quant_min, self.spec.quant_max)


def _round(rows: Tensor, scales: Tensor | None, factor: Tensor, pairs: _Pairs) -> Tensor:
    """Round ``(batch, channels, B)`` column by column; see ``round_together``.

    Errors are passed on in the unit of the weights: a step of one column may be larger than that of
    another, by ``scales``, ``(B, batch, channels)``.
    """
    columns = rows.permute(2, 0, 1).contiguous()  # one column is one piece of memory
    if scales is not None:
        columns *= scales
    factors = factor.permute(1, 2, 0).unsqueeze(3)  # (B, B, batch, 1)
    found = torch.zeros_like(columns)
    for start in range(0, len(columns), _COLUMNS):
        stop = min(start + _COLUMNS, len(columns))
        errors = torch.zeros_like(columns[start:stop])
        for column in range(start, stop):
            value = columns[column]
            if scales is None:
                found[column] = represented = pairs.rounded(value, found, column)
            else:
                found[column] = pairs.rounded(value / scales[column], found, column)
                represented = found[column] * scales[column]
            error = (value - represented) / factors[column, column]
            errors[column - start] = error
            behind = factors[column, column + 1 : stop]
            columns[column + 1 : stop].addcmul_(behind, error, value=-1)
        if stop < len(columns):
            made = factor[:, start:stop, stop:].mT @ errors.permute(1, 0, 2)
            columns[stop:] -= made.permute(1, 0, 2)
    return found.permute(1, 2, 0)
