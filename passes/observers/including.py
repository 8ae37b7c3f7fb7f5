"""Ranges that include a given value, whatever the tensor holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.quant.spec import QuantSpec


@dataclass(frozen=True)
class MustInclude:
    """Makes the observer of a spec: ``QuantSpec(..., observer=MustInclude(1.0))``.

    Attributes:
        value: Value that the range must include, besides the observed values and zero.
    """

    value: float

    def __call__(self, spec: QuantSpec, label: str) -> IncludingObserver:
        """Return the observer."""
        return IncludingObserver(spec, label, self.value)


class IncludingObserver(MinMaxObserver):
    """Keeps the range of the observed values and one given value.

    Args:
        spec: Per-tensor or per-channel.
        label: Name of the tensor, used in errors.
        value: The value to include.
    """

    def __init__(self, spec: QuantSpec, label: str, value: float) -> None:
        super().__init__(spec, label)
        self.value = value

    def observe(self, x: Tensor) -> None:
        """Widen the range to include ``x`` and the value."""
        super().observe(x)
        self.min_val = torch.clamp(self.min_val, max=self.value)
        self.max_val = torch.clamp(self.max_val, min=self.value)
