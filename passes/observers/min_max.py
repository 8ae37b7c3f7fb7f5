"""A record of the range of the observed values, and the exact range, per tensor or per channel."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import (
    QParams,
    largest_pair_sums,
    qparams_from_range,
    range_of,
    scale_above_pair_sums,
)
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


class MinMaxObserver(RangeRecord):
    """Keeps the smallest and largest value of the tensor, or of each channel along ``spec.axis``.

    For a pair-bounded weight it also keeps each channel's largest pair sum, so the record is only a
    few numbers per channel for a weight of any size.

    Attributes:
        pair_sum: Largest pair sum, same shape as the range; stays 0 without ``spec.pair_bound``.
    """

    pair_sum: Tensor

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.register_buffer("pair_sum", torch.tensor(0.0))

    def observe(self, x: Tensor) -> None:
        """Widen the range to include ``x``."""
        low, high = range_of(x, self.spec)
        self.require_finite(low, high)
        self.min_val = torch.minimum(self.min_val, low.to(self.min_val.dtype))
        self.max_val = torch.maximum(self.max_val, high.to(self.max_val.dtype))
        sums = largest_pair_sums(x, self.spec)
        if sums is not None:
            self.pair_sum = torch.maximum(self.pair_sum, sums)

    def calculate_qparams(self) -> QParams:
        """Return the qparams of the recorded range, pair-bounded if the spec says so."""
        self.require_observed()
        qparams = qparams_from_range(self.min_val, self.max_val, self.spec)
        scale = scale_above_pair_sums(qparams.scale, self.pair_sum)
        return QParams(scale, qparams.zero_point, self.spec)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, int],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # A fresh observer's buffers are 0-d, and nn.Module refuses to copy per-channel values into
        # them, so the buffers take the saved shape first.
        for name in ("min_val", "max_val", "pair_sum"):
            if prefix + name in state_dict:
                buffer: Tensor = getattr(self, name)
                setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
