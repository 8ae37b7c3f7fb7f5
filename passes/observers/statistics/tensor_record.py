"""The record of one tensor, sufficient to fill any observer of quantfx."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from quantfx.passes.observers.channel_record import ChannelRecord
from quantfx.passes.observers.histogram_record import BINS, spread_over


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """The record of a tensor, or of all tensors of a sharing group.

    Attributes:
        histogram: float32 counts, shape ``(2048,)``, as in a ``HistogramRecord``.
        min_val: float32, shape ``()``: the left edge of the first bin.
        max_val: float32, shape ``()``: the right edge of the last bin.
        extremes: float32, shape ``(calls, 2)``: smallest and largest value of each call, in order.
        channels: Record of each channel of the last dimension, if a linear reads the tensor; else
            None.
    """

    histogram: Tensor
    min_val: Tensor
    max_val: Tensor
    extremes: Tensor
    channels: ChannelRecord | None = None

    @property
    def seen(self) -> bool:
        """Whether any value was seen: a branch may never have run."""
        return len(self.extremes) > 0

    @staticmethod
    def merge(parts: Sequence[TensorRecord]) -> TensorRecord:
        """Return the record of all parts' values.

        Counts move by at most one bin of the wider range; everything else is exact.

        Args:
            parts: At least one record, in the order in which their values count as seen.
        """
        seen = [part for part in parts if part.seen]
        if len(seen) < 2:
            return seen[0] if seen else parts[0]
        extremes = torch.cat([part.extremes for part in seen])
        low, high = extremes[:, 0].min(), extremes[:, 1].max()
        counts = torch.zeros(BINS)
        if bool(torch.isfinite(high - low)):  # otherwise the range is too wide for bins
            for part in seen:
                counts += spread_over(part.histogram, (part.min_val, part.max_val), low, high)
        channels = [part.channels for part in seen if part.channels is not None]
        merged = None
        if len(channels) == len(seen) and len({len(each.low) for each in channels}) == 1:
            merged = deepcopy(channels[0])
            for each in channels[1:]:
                merged.add(each)
        return TensorRecord(counts, low, high, extremes, merged)
