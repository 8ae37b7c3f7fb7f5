"""Fake-quantize modules, which are observers that also round, for training."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.errors import CalibrationError
from quantfx.passes.layers.saved_flags import SavedFlags
from quantfx.passes.observers.agree import Group, agree_on_range
from quantfx.passes.observers.moving_average import MovingAverageObserver
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import (
    QParams,
    pair_bounded_scale,
    qparams_from_range,
    range_of,
)
from quantfx.passes.quant.spec import QuantSpec

_NARROW = (torch.bfloat16, torch.float16)


class FakeQuantize(SavedFlags, Observer):
    """Rounds a float tensor to the integer grid it will be quantized to, and returns it as float.

    Gradients pass unchanged where the value lies in the grid's range, and vanish outside of it (the
    straight-through estimator, Bengio et al. 2013). The range is only learned in training mode.

    Attributes:
        quantizing: Whether to round; False makes it an observer.
        frozen: Whether to stop learning.
        calibrating: Whether only to observe, in any mode.
    """

    saved = ("frozen", "quantizing")

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.quantizing = True
        self.calibrating = False
        self._group = Group()

    @property
    def group(self) -> Any:
        """Process group whose members agree on what they observe; see `Group`."""
        return self._group.members

    @group.setter
    def group(self, members: Any) -> None:
        self._group = Group(members)

    def forward(self, x: Tensor) -> Tensor:
        """Observe ``x``, if training and not frozen, and return it rounded, in its own dtype.

        Raises:
            CalibrationError: a range is observed and ``x`` holds NaN or infinity, or nothing was
                ever observed.
        """
        if (self.calibrating or self.training) and not self.frozen:
            self.observe(x.detach())
        if not self.quantizing or self.calibrating or not x.numel():
            return x
        if x.dtype not in _NARROW:
            return self.fake_quantize(x)
        # Under autocast x may be too narrow for the grid: 8 bits and a scale do not fit bfloat16.
        return self.fake_quantize(x.float()).to(x.dtype)

    @abstractmethod
    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return the float32 or float64 tensor ``x`` on the grid, differentiable."""

    def see_constant(self, x: Tensor) -> None:
        """Do nothing: training changes the constant."""

    def calculate_qparams(self) -> QParams:
        """Return the qparams of a tensor that is not constant."""
        return self.qparams_of(None)

    def end_calibration(self) -> None:
        """Note that calibration has ended."""


def fake_quantized(x: Tensor, qparams: QParams) -> Tensor:
    """Return ``x`` quantized and dequantized, with a straight-through gradient.

    The values equal, bit for bit, the result of ``quantize_per_tensor`` and
    ``dequantize_per_tensor`` (or per channel) with the same qparams.

    Args:
        x: float32 or float64.
        qparams: Per-tensor, per-channel along an axis of ``x``, or with groups in rows of ``x``.
    """
    spec, zero_point = qparams.spec, qparams.zero_point.to(torch.int32)
    limits = spec.quant_min, spec.quant_max
    if spec.group is not None:  # each group is a channel of one long matrix
        scale, zeros, groups = (
            qparams.scale.flatten(),
            zero_point.flatten(),
            x.reshape(-1, spec.group),
        )
        return torch.fake_quantize_per_channel_affine(groups, scale, zeros, 0, *limits).view_as(x)
    if spec.axis is None:
        return torch.fake_quantize_per_tensor_affine(x, qparams.scale, zero_point, *limits)
    return torch.fake_quantize_per_channel_affine(x, qparams.scale, zero_point, spec.axis, *limits)


class WeightFakeQuantize(FakeQuantize):
    """Rounds with the qparams of the weight's current range; it keeps no state.

    A pair bound holds in every step, so training sees the scales for a CPU without VNNI.
    """

    def observe(self, x: Tensor) -> None:
        """Do nothing: each call uses the range of its own weight."""

    @property
    def observed(self) -> bool:
        """True: no data is needed."""
        return True

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the grid of its range."""
        return fake_quantized(x, weight_qparams(x.detach(), self.spec))

    def qparams_of(self, x: Tensor | None) -> QParams:
        """Return the qparams of the weight ``x``."""
        if x is None:
            message = f"the weight of {self.label} is computed from data"
            fix = "keep that operator float"
            raise CalibrationError(message, rule="computed-weight", site=self.label, fix=fix)
        self.require_finite(*torch.aminmax(x))
        return weight_qparams(x, self.spec)


def weight_qparams(weight: Tensor, spec: QuantSpec) -> QParams:
    """Return the qparams of the range of ``weight``, pair-bounded if the spec says so.

    Args:
        weight: ``(out, in / groups, *kernel)`` or ``(N, K)``, without gradient.
        spec: Per-tensor, or per-channel along its axis.
    """
    qparams = qparams_from_range(*range_of(weight, spec), spec)
    return QParams(pair_bounded_scale(weight, qparams.scale, spec), qparams.zero_point, spec)


class MovingFakeQuantize(FakeQuantize):
    """Rounds with the qparams of a moving average of each batch's range.

    Args:
        spec: Per-tensor.
        label: Name of the tensor, used in errors.

    Attributes:
        range: The averaged range.
    """

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.range = MovingAverageObserver(spec, label)

    def observe(self, x: Tensor) -> None:
        """Move the range towards the range of ``x`` and of other processes' batches."""
        if x.numel():
            low, high = torch.aminmax(x)
        else:  # other processes may have values, and wait for this one
            low, high = x.new_tensor(torch.inf), x.new_tensor(-torch.inf)
        low, high = agree_on_range(low, high, None if self.calibrating else self.group)
        if x.numel() or low <= high:
            self.range.follow(low, high)

    @property
    def observed(self) -> bool:
        """Whether any batch was seen."""
        return self.range.observed

    @property
    def extremes(self) -> tuple[Tensor, Tensor] | None:
        """The extremes of the averaged range."""
        return self.range.extremes

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the grid of the range seen so far."""
        return fake_quantized(x, self.range.calculate_qparams())

    def qparams_of(self, x: Tensor | None) -> QParams:
        """Return the qparams of the range seen so far."""
        return self.range.calculate_qparams()
