"""Fake quantization of activations, with a range that follows the batches."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.observers.agree import agree_on_range
from quantfx.passes.observers.fake_quantize import FakeQuantize, fake_quantized
from quantfx.passes.observers.moving_average import MovingAverageObserver
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec


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
