"""Scales of constant weights, searched per channel for the smallest squared error."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.scale_search import Block, IntegerRange, best_scales, in_blocks
from quantfx.passes.quant.qparams import (
    QParams,
    largest_pair_sums,
    qparams_from_range,
    scale_above_pair_sums,
)
from quantfx.passes.quant.spec import QuantSpec

_EXPONENT = 126  # its power of two, and the reciprocal of that, are normal


class WeightObserver(Observer):
    """Finds, for each channel, the scale with which the quantized weight is nearest.

    Candidates (see ``passes/observers/scale_search.py``) lie around the scale that maps the largest
    magnitude to the last integer, and include the usual ``absmax / 127.5``, which clips a channel's
    largest weight if it is positive. Small channels gain from a grid that fits their few values,
    large channels from clipping a rare outlier. A pair bound is a lower limit of the candidates.

    The weight is kept by reference and searched when its qparams are requested, so that preparing a
    model stays fast.

    Attributes:
        weight: The observed weight; None before.
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
        weight = weight.movedim(spec.axis or 0, 0)
        channels = len(weight)
        if spec.group is not None:  # each group is searched like a channel
            weight = weight.reshape(-1, spec.group)
        length = weight[0].numel() if len(weight) else 0
        with torch.no_grad():
            moved = replace(spec, axis=0)
            found = in_blocks(length, len(weight), lambda part: _search(weight[part], moved))
            scale, largest = found.unbind(1)
            usual = qparams_from_range(-largest, largest, spec).scale
            scale = torch.where(largest > 0, scale.clamp(min=spec.eps), usual)
        if spec.group is not None:
            scale = scale.reshape(channels, -1)
        return QParams(scale, torch.zeros_like(scale, dtype=torch.int64), spec)


def _search(weight: Tensor, spec: QuantSpec) -> Tensor:
    """Return each channel's best scale (arbitrary if all values are zero) and largest magnitude.

    Args:
        weight: Channels are the first dimension; the result has two columns.
        spec: Range, eps and pair bound.
    """
    with torch.no_grad():  # also in a separate thread
        weight = weight.float()
        largest = weight.flatten(1).abs().amax(1)
        # The search squares errors, so values are scaled near 1; a power of two changes no bit of
        # the result.
        exponent = torch.frexp(largest).exponent.clamp(-_EXPONENT, _EXPONENT)
        weight = torch.ldexp(weight, -exponent.reshape(-1, *[1] * (weight.dim() - 1)))
        least = torch.ldexp(torch.full_like(largest, spec.eps), -exponent)
        sums = largest_pair_sums(weight, spec)
        bound = torch.zeros_like(least)
        bound = bound if sums is None else scale_above_pair_sums(bound, sums)
        block = Block(weight.flatten(1), least, bound)
        scale = best_scales(block, IntegerRange(spec.quant_min, spec.quant_max))
        return torch.stack((torch.ldexp(scale, exponent), largest), 1)
