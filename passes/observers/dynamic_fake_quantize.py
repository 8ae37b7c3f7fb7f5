"""Fake quantization with a range found in each call, as in dynamic kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.observers.fake_quantize import fake_quantized
from quantfx.passes.observers.placeholder import PlaceholderFakeQuantize
from quantfx.passes.quant.qdq import choose_qparams_op
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec


class DynamicFakeQuantize(PlaceholderFakeQuantize):
    """Rounds each tensor with the qparams of its own range, in both training and evaluation.

    Args:
        spec: A dynamic spec.
        label: Name of the tensor, used in errors.
    """

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.dynamic = spec

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded, in its own dtype."""
        if not self.quantizing or not x.numel():
            return x
        spec = self.dynamic
        value = x.float()
        with torch.no_grad():
            given = (spec.quant_min, spec.quant_max, spec.eps, spec.dtype)
            scale, zero_point = choose_qparams_op(spec.symmetric)(value.detach(), *given)
        qparams = QParams(scale.float().reshape(()), zero_point.reshape(()), spec)
        return fake_quantized(value, qparams).to(x.dtype)
