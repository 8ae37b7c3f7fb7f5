"""A range that follows the batches slowly, for training."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.observers.min_max import RangeRecord
from quantfx.passes.quant.qparams import QParams, qparams_from_range

AVERAGING = 0.01


class MovingAverageObserver(RangeRecord):
    """Exponential moving average of each batch's smallest and largest value.

    The first batch sets the range; each later batch moves both ends by 1 % of the distance to its
    own range, as torch.ao's ``MovingAverageMinMaxObserver`` does by default.
    """

    def observe(self, x: Tensor) -> None:
        """Move the range towards the range of ``x``."""
        self.follow(*torch.aminmax(x))

    def follow(self, low: Tensor, high: Tensor) -> None:
        """Move the range towards ``[low, high]``, both of shape ``()``."""
        self.require_finite(low, high)
        low, high = low.to(self.min_val.dtype), high.to(self.max_val.dtype)
        if self.observed:
            low = self.min_val + AVERAGING * (low - self.min_val)
            high = self.max_val + AVERAGING * (high - self.max_val)
        self.min_val.copy_(low)
        self.max_val.copy_(high)

    def calculate_qparams(self) -> QParams:
        """Return the qparams of the averaged range."""
        self.require_observed()
        return qparams_from_range(self.min_val, self.max_val, self.spec)
