"""The smallest and largest value that an observer saw."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.spec import QuantSpec


class RangeRecord(Observer):
    """Records a range; a subclass defines how the range follows the values.

    Attributes:
        min_val: float32, ``()`` per tensor; ``(channels,)`` per channel once observed.
        max_val: Same shape.
    """

    min_val: Tensor
    max_val: Tensor

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.register_buffer("min_val", torch.tensor(torch.inf))
        self.register_buffer("max_val", torch.tensor(-torch.inf))

    @property
    def observed(self) -> bool:
        """Whether any value was recorded."""
        return bool((self.min_val <= self.max_val).all())

    @property
    def extremes(self) -> tuple[Tensor, Tensor]:
        """The smallest and largest recorded value."""
        return self.min_val, self.max_val
