"""Fake quantization of weights, whose full range is known in each step."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.errors import CalibrationError
from quantfx.passes.observers.fake_quantize import FakeQuantize, fake_quantized
from quantfx.passes.quant.qparams import (
    QParams,
    pair_bounded_scale,
    qparams_from_range,
    range_of,
)
from quantfx.passes.quant.spec import QuantSpec


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
