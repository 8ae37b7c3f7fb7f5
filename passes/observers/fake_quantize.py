"""The base of all fake-quantize modules: observers that also round, for training."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.layers.saved_flags import SavedFlags
from quantfx.passes.observers.agree import Group
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams
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
