"""Fake quantization whose scale is a parameter, trained with the weights."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import Function

from quantfx.passes.observers.agree import copy_from_first
from quantfx.passes.observers.fake_quantize import FakeQuantize
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams, largest_pair_sums, scale_above_pair_sums
from quantfx.passes.quant.spec import QuantSpec


class LearnedFakeQuantize(FakeQuantize):
    """Rounds with a learned step size (LSQ, Esser et al. 2020, section 2.1).

    The scale is ``start * exp(log_ratio)``: no optimizer step makes it zero or negative, a step of
    Adam changes it by the learning rate relative to itself, and weight decay pulls it back to its
    start (a logarithm, as in Jain et al. 2020). The parameter gets LSQ's gradient of the scale s:
    ``round(x / s) - x / s`` inside the range and the clipped integer outside, times
    ``1 / sqrt(n * quant_max)`` for n elements per scale (section 2.2).

    It starts at the scale that the spec's own observer finds in the calibration data, or else in
    the first batch that is rounded; the zero point stays fixed from then on.

    Args:
        spec: Per-tensor or per-channel; not dynamic, with one of quantfx's observers by name.
        shape: Number of channels, if per-channel; of channels and groups, with groups.
        label: Name of the tensor, used in errors.

    Attributes:
        log_ratio: float32 parameter, shape ``()``, ``(channels,)`` or ``(channels, groups)``.
        start: float32 of the same shape; 0 before the start.
        zero_point: int64 of the same shape.
    """

    start: Tensor
    zero_point: Tensor

    def __init__(self, spec: QuantSpec, shape: tuple[int, ...] = (), label: str = "") -> None:
        super().__init__(spec, label)
        self.log_ratio = nn.Parameter(torch.zeros(shape))
        self.register_buffer("start", torch.zeros(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int64))
        # In a list, so that its record is not part of the state_dict.
        self._first: list[Observer] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded; the scale has a gradient even while rounding is off.

        DistributedDataParallel waits for the gradient of every parameter.
        """
        result = super().forward(x)
        if self.training and not self.calibrating and result is x:
            touched: Tensor = _Touch.apply(x, self.log_ratio)  # type: ignore[no-untyped-call]
            return touched
        return result

    @property
    def scale(self) -> Tensor:
        """The current scale, differentiable."""
        return self.start * self.log_ratio.exp()

    def observe(self, x: Tensor) -> None:
        """Find the start scale, unless there is one; calibration always finds a new one."""
        if not self.calibrating and (self.observed or not self.quantizing):
            return
        if not self._first:
            self._first = [cast(Observer, make_observer(self.spec, self.label))]
        if x.numel():
            self._first[0].observe(x.float())
        if not self.calibrating:
            self._start_learning()

    def end_calibration(self) -> None:
        """Start from the calibration data."""
        if self._first:
            self._start_learning()

    @property
    def observed(self) -> bool:
        """Whether the scale has been set."""
        return bool((self.start > 0).all())

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the grid, with gradients for ``x`` and for the scale."""
        self.require_observed()
        scale = self._bound_scale(self.scale.detach(), x.detach())
        # Each group is a channel of one long matrix.
        rows = x if self.spec.group is None else x.reshape(-1, self.spec.group)
        rounded: Tensor = _Rounded.apply(  # type: ignore[no-untyped-call]
            rows, self.log_ratio, scale, self.zero_point.to(scale.dtype), self.spec
        )
        return rounded.view_as(x)

    def qparams_of(self, x: Tensor | None) -> QParams:
        """Return the learned qparams; for a constant ``x`` they are pair-bounded as in training."""
        self.require_observed()
        scale = self.scale.detach().float()
        self.require_finite(scale, scale if x is None else x)
        return QParams(self._bound_scale(scale, x), self.zero_point, self.spec)

    def _start_learning(self) -> None:
        first = self._first.pop()
        with torch.no_grad():
            if first.observed:  # an empty batch leaves the start to the next batch
                found = first.calculate_qparams()
                self.start.copy_(found.scale)
                self.zero_point.copy_(found.zero_point)
                self.log_ratio.zero_()
        for value in (self.start, self.zero_point):
            copy_from_first(value, None if self.calibrating else self.group)

    def _bound_scale(self, scale: Tensor, x: Tensor | None) -> Tensor:
        """Return ``scale``, raised to the spec's floor and to the pair bound of ``x``."""
        bounded = scale.clamp(min=self.spec.eps)
        sums = None if x is None else largest_pair_sums(x, self.spec)
        return bounded if sums is None else scale_above_pair_sums(bounded, sums)


class _Rounded(Function):
    """Rounding to a grid, with gradients for the tensor and for the logarithm of the scale.

    Written out, because autograd's gradient of ``x / scale`` squares the scale, and squares of
    scales below 2^-63 underflow. The gradient passes where a bound holds the scale up, so that the
    scale can move away again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, log_ratio: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec
    ) -> Tensor:
        if spec.axis is not None:
            shape = [1] * x.dim()
            shape[spec.axis] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        ctx.save_for_backward(x, scale, zero_point)
        ctx.spec, ctx.shape = spec, log_ratio.shape
        _, steps = _steps(x, scale, zero_point)
        return (steps.clamp(spec.quant_min, spec.quant_max) - zero_point) * scale

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor, None, None, None]:
        x, scale, zero_point = ctx.saved_tensors
        (grad,), spec = grad_outputs, ctx.spec
        scaled, steps = _steps(x, scale, zero_point)
        inside = (steps >= spec.quant_min) & (steps <= spec.quant_max)
        of_x = torch.where(inside, grad, 0)
        clipped = steps.clamp(spec.quant_min, spec.quant_max) - zero_point
        of_scale = grad * torch.where(inside, clipped - scaled, clipped)
        others = [axis for axis in range(x.dim()) if axis != spec.axis]
        total = of_scale.sum(others) if others else of_scale
        per_scale = x.numel() // total.numel()
        of_log = total.to(scale.dtype) / math.sqrt(per_scale * max(spec.quant_max, 1))
        return of_x, of_log.reshape(ctx.shape), None, None, None


def _steps(x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x`` in grid steps from zero, and the same rounded, as torch quantizes."""
    scaled = x * (1 / scale)  # the reciprocal comes first
    return scaled, scaled.round() + zero_point


class _Touch(Function):
    """Identity that gives an unused parameter a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor) -> Tensor:
        ctx.save_for_backward(parameter)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor]:
        return grad_outputs[0], torch.zeros_like(ctx.saved_tensors[0])
