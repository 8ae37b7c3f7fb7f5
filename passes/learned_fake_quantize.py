"""Fake quantization whose scale is a parameter, trained with the weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from quantfx.passes.agree import agreed_copy
from quantfx.passes.fake_quantize import FakeQuantize
from quantfx.passes.make_observer import make_observer
from quantfx.passes.observer import Observer, QParams
from quantfx.passes.qparams import largest_pair_sums, scale_above_pair_sums
from quantfx.passes.spec import QuantSpec


class LearnedFakeQuantize(FakeQuantize):
    """Rounds with a learned step size (LSQ, Esser et al. 2020, section 2.1).

    The gradient of the scale is ``round(x / s) - x / s`` inside the range and the clipped integer
    outside, times ``1 / sqrt(n * quant_max)``, n elements a scale (section 2.2). It starts where
    the spec's own observer puts it, on what calibration saw or else on the first batch; the zero
    point stays as it was then.

    Args:
        spec: Per-tensor or per-channel.
        channels: How many, if per-channel.
        label: Name of the tensor, used in errors.

    Attributes:
        scale: float32 parameter, shape ``()`` or ``(channels,)``; 1 before it has started.
        zero_point: int64 of the same shape.
        started: Whether the scale has a meaning.
    """

    verb: ClassVar[str] = "learn"
    zero_point: Tensor

    def __init__(self, spec: QuantSpec, channels: int = 1, label: str = "") -> None:
        super().__init__(spec, label)
        shape = () if spec.axis is None else (channels,)
        self.scale = nn.Parameter(torch.ones(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int64))
        self.started = False
        # In a list, so that what it records is no part of the state_dict.
        self._first: list[Observer] = []

    def observe(self, x: Tensor) -> None:
        """Find the scale to start from, unless it has one."""
        if self.started:
            return
        if not self._first:
            observer = make_observer(replace(self.spec, dynamic=False), self.label)
            if not isinstance(observer, Observer):
                raise TypeError(f"{self.label}: '{self.spec}' observes nothing")
            self._first = [observer]
        self._first[0].observe(x.float())
        if not self.calibrating:
            self._start()

    def calibrated(self) -> None:
        """Start from what calibration saw."""
        if self._first and not self.started:
            self._start()

    @property
    def observed(self) -> bool:
        """Whether the scale has a meaning."""
        return self.started

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the grid, with gradients for ``x`` and for the scale."""
        self.require_observed()
        spec = self.spec
        per_scale = x.numel() // self.scale.numel()
        gradient = 1 / math.sqrt(per_scale * max(spec.quant_max, 1))
        scale = self._bounded(_scaled_gradient(self.scale, gradient), x.detach())
        zero_point = self.zero_point.to(scale.dtype)
        if spec.axis is not None:
            shape = [1] * x.dim()
            shape[spec.axis] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        # As torch quantizes: the reciprocal first.
        steps = _rounded(x * (1 / scale)) + zero_point
        return (steps.clamp(spec.quant_min, spec.quant_max) - zero_point) * scale

    def qparams_of(self, x: Tensor | None) -> QParams:
        """Return the learned qparams; for a constant ``x`` they are pair-bounded as in training."""
        self.require_observed()
        scale = self.scale.detach().float()
        scale = scale.clamp(min=self.spec.eps) if x is None else self._bounded(scale, x)
        return QParams(scale, self.zero_point, self.spec)

    def get_extra_state(self) -> Tensor:
        """Return the flags for ``state_dict``, as a tensor."""
        return torch.tensor([self.frozen, self.quantizing, self.started])

    def set_extra_state(self, state: Tensor) -> None:
        """Take the flags from a ``state_dict``."""
        super().set_extra_state(state)
        self.started = bool(state[2])

    def _start(self) -> None:
        found = self._first.pop().calculate_qparams()
        with torch.no_grad():
            self.scale.copy_(found.scale)
            self.zero_point.copy_(found.zero_point)
        for value in (self.scale.data, self.zero_point):
            agreed_copy(value, None if self.calibrating else self.group)
        self.started = True

    def _bounded(self, scale: Tensor, x: Tensor) -> Tensor:
        """A step is positive, and as large as the pair bound of the weight asks for."""
        scale = scale.clamp(min=self.spec.eps)
        sums = largest_pair_sums(x, self.spec)
        return scale if sums is None else scale_above_pair_sums(scale, sums)


def _scaled_gradient(value: Tensor, factor: float) -> Tensor:
    """Return ``value``, to the bit, with ``factor`` on its gradient."""
    return _with_gradient_of(value, value * factor)


def _rounded(value: Tensor) -> Tensor:
    """Return ``value`` rounded to even, with the gradient of the identity."""
    return _with_gradient_of(value.round(), value)


def _with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    return value.detach() + (other - other.detach())
