"""Scales of constant weights, searched per channel for the smallest squared error."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from quantfx.passes.observer import Observer, QParams
from quantfx.passes.qparams import (
    largest_pair_sums,
    qparams_from_range,
    scale_above_pair_sums,
)
from quantfx.passes.spec import QuantSpec

_SHRINK, _GROW = 0.5, 1.01
_MOST, _LEAST = 103, 16
_WORK = 2**24
_EXPONENT = 126  # whose power of two, and its reciprocal, are normal
# Rows searched at once: torch hands larger operands to its thread pool, and so many calls that each
# wait for a second thread take ten times longer than one thread in its cache.
_BLOCK = 2**15 - 1


class WeightObserver(Observer):
    """Finds, for each channel, the scale under which the quantized weight is nearest.

    Candidates run from 0.5 to 1.01 times the scale that puts the largest magnitude on the last
    integer, and hold the usual ``absmax / 127.5``, which clips each channel's largest weight where
    that is positive. Small channels gain from a grid that fits their few values, large ones from
    clipping a rare outlier. A pair bound is a lower limit of the candidates.

    The weight is kept by reference and searched when its qparams are asked for, so that preparing
    a model stays quick.

    Attributes:
        weight: The weight that was seen, None before.
    """

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.weight: Tensor | None = None

    def observe(self, x: Tensor) -> None:
        """Keep the weight ``x``; the last one seen counts."""
        self.require_finite(*torch.aminmax(x))
        self.weight = x

    @property
    def observed(self) -> bool:
        """Whether a weight was seen."""
        return self.weight is not None

    def calculate_qparams(self) -> QParams:
        """Return the best scales, with zero point 0."""
        self.require_observed()
        weight = cast(Tensor, self.weight)
        spec = self.spec
        weight = weight.movedim(spec.axis or 0, 0).float()
        largest = weight.flatten(1).abs().amax(1)
        # The search squares errors: near 1, where a power of two changes no bit of what it finds.
        exponent = torch.frexp(largest).exponent.clamp(-_EXPONENT, _EXPONENT)
        weight = torch.ldexp(weight, -exponent.reshape(-1, *[1] * (weight.dim() - 1)))
        rows = weight.flatten(1)
        whole = rows.abs().amax(1) / spec.quant_max
        least = torch.ldexp(torch.full_like(largest, spec.eps), -exponent)
        sums = largest_pair_sums(weight, spec)
        if sums is not None:
            least = scale_above_pair_sums(least, sums)
        scale = torch.ldexp(_search(rows, whole, least, spec), exponent)
        usual = qparams_from_range(-largest, largest, spec).scale
        scale = torch.where(largest > 0, scale.clamp(min=spec.eps), usual)
        return QParams(scale, torch.zeros_like(scale, dtype=torch.int64), spec)


def _search(rows: Tensor, whole: Tensor, least: Tensor, spec: QuantSpec) -> Tensor:
    """Return the best of the candidate scales for each row.

    Large weights get fewer candidates: their error changes smoothly with the scale.
    """
    count = max(_LEAST, min(_MOST, _WORK // max(rows.numel(), 1)))
    usual = spec.quant_max / (spec.quant_max + 0.5)
    factors = [usual, *torch.linspace(_SHRINK, _GROW, count).tolist()]
    block = max(1, _BLOCK // rows.shape[1])
    starts = range(0, len(rows), block)
    parts = [slice(start, start + block) for start in starts]
    return torch.cat(
        [_search_block(rows[part], whole[part], least[part], factors, spec) for part in parts]
    )


def _search_block(
    rows: Tensor, whole: Tensor, least: Tensor, factors: list[float], spec: QuantSpec
) -> Tensor:
    best = torch.maximum(whole, least)
    error = _error(rows, best, spec)
    for factor in factors:
        scale = torch.maximum(whole * factor, least)
        candidate = _error(rows, scale, spec)
        better = candidate < error
        best = torch.where(better, scale, best)
        error = torch.where(better, candidate, error)
    return best


def _error(rows: Tensor, scale: Tensor, spec: QuantSpec) -> Tensor:
    """Return the squared error of each row, quantized under its scale."""
    zero = torch.zeros_like(scale, dtype=torch.int32)
    quantized = torch.fake_quantize_per_channel_affine(
        rows, scale, zero, 0, spec.quant_min, spec.quant_max
    )
    return (quantized - rows).square_().sum(1)
