"""Scale and zero point from a float range, and the pair bound of weights for saturating CPUs.

CPUs without VNNI multiply u8 by s8 with ``vpmaddubsw``, which adds two neighbouring products into
a *saturating* signed 16-bit sum. Activations up to 255 leave room for 32767 // 255 = 128, so the
sum is exact when no two weights of a pair have magnitudes of the same sign that exceed 128
together. ``pair_bounded_scale`` guarantees it and ``saturates`` checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from quantfx.passes.errors import SpecError
from quantfx.passes.quant.scale_floor import UNKNOWN_RANGE, has_floor
from quantfx.passes.quant.spec import QuantSpec

Pairing = Literal["blocks", "adjacent"]

S16_MAX = 32767
PAIR_LIMIT = S16_MAX // 255  # the bound for two same-sign magnitudes together
# Two magnitudes that sum to 127 steps round to integers that sum to at most 127 + 2 * 0.5 = 128.
PAIR_STEPS = 127
# Below the largest float by more than the rounding error of a product.
_LARGEST = torch.finfo(torch.float32).max * (1 - 2**-20)


def range_of(x: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest value of ``x``, per channel if ``spec`` has an axis.

    With groups the shape is ``(channels, groups)``.
    """
    if spec.axis is None:
        low, high = torch.aminmax(x)
    elif spec.group is not None:
        low, high = torch.aminmax(x.reshape(len(x), -1, spec.group), dim=2)
    else:
        low, high = torch.aminmax(x.movedim(spec.axis, 0).reshape(x.shape[spec.axis], -1), dim=1)
    return low, high


def qparams_from_range(low: Tensor, high: Tensor, spec: QuantSpec) -> QParams:
    """Return the scale and zero point that cover ``[low, high]`` and zero.

    1. symmetric: ``scale = 2 * max(|low|, |high|) / (quant_max - quant_min)``; the zero point is
       0 for s8 and the middle of the range for u8.
    2. affine: ``scale = (high - low) / (quant_max - quant_min)`` with zero counted in, and
       ``zero_point = quant_min - round(low / scale)``, clamped to the range.

    The scale is never below ``spec.eps``. Both cases give bit for bit what torch.ao's uniform
    observers give (torch/ao/quantization/observer.py, ``_calculate_qparams``), except where
    torch.ao yields infinity, and except for a range of only zero unless ``spec`` asks for a floor:

    3. a range of only zero is replaced by the range of the largest channel, or else the unit range;
       for a tensor with one scale, by ``UNKNOWN_RANGE``, a guess.
    4. no integer of the range represents more than the largest float.

    Args:
        low: Smallest values, shape ``()`` per tensor or ``(channels,)`` per channel.
        high: Largest values, same shape.
        spec: Range, scheme and eps.
    """
    low = low.to(torch.float32).clamp(max=0.0)
    high = high.to(torch.float32).clamp(min=0.0)
    if not has_floor(spec.eps):
        low, high = _with_zeros_guessed(low, high, spec)
    steps = spec.quant_max - spec.quant_min
    if spec.symmetric:
        scale = (torch.maximum(-low, high) / (steps / 2)).clamp(min=spec.eps)
        zero_point = torch.full_like(scale, _symmetric_zero_point(spec), dtype=torch.int64)
        return QParams(_make_representable(scale, zero_point, spec), zero_point, spec)
    scale = (high - low) / steps
    # Only a span beyond the largest float is divided in two parts: that changes the result's bits.
    scale = torch.where(scale.isinf(), high / steps - low / steps, scale).clamp(min=spec.eps)
    zero_point = spec.quant_min - torch.round(low / scale).to(torch.int64)
    zero_point = zero_point.clamp(spec.quant_min, spec.quant_max)
    return QParams(_make_representable(scale, zero_point, spec), zero_point, spec)


def _with_zeros_guessed(low: Tensor, high: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Return the range with ranges of only zero replaced by a guess around zero."""
    reach = torch.full((), UNKNOWN_RANGE)
    if spec.axis is not None and low.numel():
        largest = torch.maximum(-low, high).max()
        reach = torch.where(largest > 0, largest, torch.ones_like(largest))
    reach = reach.to(low)
    nothing = (low == 0) & (high == 0)
    return torch.where(nothing, -reach, low), torch.where(nothing, reach, high)


def _make_representable(scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """Return ``scale``, lowered where the first or last integer would represent infinity."""
    farthest = torch.maximum(zero_point - spec.quant_min, spec.quant_max - zero_point)
    return torch.minimum(scale, (_LARGEST / farthest.double()).to(scale.dtype))


def _symmetric_zero_point(spec: QuantSpec) -> int:
    if spec.dtype == torch.int8:
        return 0
    # 255 is odd, so the full range has two middles: torch.ao takes the upper middle for the full
    # range and the lower middle for every narrower range.
    middle = (spec.quant_min + spec.quant_max) // 2
    return 128 if (spec.quant_min, spec.quant_max) == (0, 255) else middle


def pair_bounded_scale(weight: Tensor, scale: Tensor, spec: QuantSpec) -> Tensor:
    """Return ``scale``, raised where the sum of two same-sign neighbours in a channel is too large.

    Afterwards ``|q_i| + |q_j| <= 128`` for every such pair, however values are rounded.

    Args:
        weight: Float weight, shape ``(out, in_per_group, *kernel)`` or ``(N, K)``.
        scale: float32, shape ``(out,)``.
        spec: Its ``pair_bound`` says which inputs are neighbours; ``none`` changes nothing.
    """
    sums = largest_pair_sums(weight, spec)
    return scale if sums is None else scale_above_pair_sums(scale, sums)


def largest_pair_sums(weight: Tensor, spec: QuantSpec) -> Tensor | None:
    """Return each output channel's largest ``|w_i| + |w_j|`` of a pair, shape ``(out,)``.

    None if the spec asks for no bound.

    Args:
        weight: ``(out, in, ...)``, or ``(in, out, ...)`` for a transposed convolution: output
            channels lie along the spec's axis, inputs along the other of the first two axes.
        spec: Per-channel.

    Raises:
        SpecError: a bounded weight without inputs, or with channels on another axis.
    """
    if spec.pair_bound == "none":
        return None
    if spec.axis not in (0, 1) or weight.dim() < 2:
        raise SpecError(
            f"pair_bound={spec.pair_bound!r} needs a weight (out, in, ...) with axis 0 or "
            f"(in, out, ...) with axis 1, not axis {spec.axis} of shape {tuple(weight.shape)}",
            rule="pair-bound",
            site=str(spec),
        )
    return _pair_sums(weight.to(torch.float32).movedim(spec.axis, 0), spec.pair_bound)


def scale_above_pair_sums(scale: Tensor, sums: Tensor) -> Tensor:
    """Return the larger of ``scale`` and ``sums / 127``, both of shape ``(out,)``."""
    return torch.maximum(scale, sums.clamp(max=torch.finfo(torch.float32).max) / PAIR_STEPS)


def saturates(weight: Tensor, activation_max: int, pairing: Pairing) -> Tensor:
    """Return which output channels of an integer weight can leave a signed 16-bit sum.

    Args:
        weight: int8, shape ``(out, in_per_group, *kernel)`` or ``(N, K)``.
        activation_max: Largest u8 activation, 255 for the full range.
        pairing: ``blocks`` for a convolution, ``adjacent`` for a linear.

    Returns:
        bool, shape ``(out,)``; all false means that a CPU without VNNI computes exactly.
    """
    return _pair_sums(weight.to(torch.int32), pairing) * activation_max > S16_MAX


def _pair_sums(weight: Tensor, pairing: Pairing) -> Tensor:
    """Return the largest same-sign pair sum of each output channel; 0 where there is no pair."""
    stride = 2 if pairing == "blocks" else 1
    right = weight[:, 1::stride]
    left = weight[:, : weight.shape[1] - 1 : stride]
    # A pair with a zero has the sum of a single weight, which is at most 128.
    same_sign = ((left > 0) & (right > 0)) | ((left < 0) & (right < 0))
    sums = torch.where(same_sign, (left + right).abs(), 0).flatten(1)
    # The column of zeros gives weights without any pair (depthwise) a maximum as well.
    return torch.cat([sums.new_zeros(len(weight), 1), sums], dim=1).amax(dim=1)


@dataclass(frozen=True)
class QParams:
    """Scale and zero point of one tensor.

    Attributes:
        scale: float32; shape ``()`` per-tensor, ``(channels,)`` per-channel, ``(channels, groups)``
            with groups.
        zero_point: int64 of the same shape.
        spec: The dtype, range and axis they belong to.
    """

    scale: Tensor
    zero_point: Tensor
    spec: QuantSpec
