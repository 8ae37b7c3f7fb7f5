"""The histogram of all values that an observer saw, on a range that grows with the data."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from quantfx.passes.observers.min_max import RangeRecord
from quantfx.passes.quant.qparams import QParams, qparams_from_range
from quantfx.passes.quant.spec import QuantSpec

BINS = 2048
# When the range grows, each bin is split into this many parts and redistributed.
UPSAMPLE = 16


# ``histc`` multiplies distances in float32 by the number of bins, so ranges near the largest float
# would overflow to infinity, which it does not count. Powers of two change no bit of the counts.
_FAR = 2.0**100
_NEARER = 2.0**-20


def histogram(x: Tensor, bins: int, low: float, high: float) -> Tensor:
    """Return how many values of ``x`` are in each of ``bins`` parts of ``[low, high]``.

    Args:
        x: float32.
        bins: Fewer than 2^20.
        low: Left edge of the first bin.
        high: Right edge of the last bin; ``high - low`` is finite in float32.
    """
    if max(-low, high) > _FAR:
        x, low, high = x * _NEARER, low * _NEARER, high * _NEARER
    return torch.histc(x, bins, min=low, max=high)


def spread_over(counts: Tensor, old: tuple[Tensor, Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return ``counts`` in as many bins of the wider range ``[low, high]``.

    Args:
        counts: float32, of a histogram.
        old: Its range.
        low: Left edge of the first new bin.
        high: Right edge of the last new bin; ``high - low`` is finite in float32.
    """
    bins = len(counts)
    old_low, old_high = float(old[0]), float(old[1])
    if old_low == low and old_high == high:
        return counts
    if old_low == old_high:
        one = histogram(old[0], bins, float(low), float(high))
        return one * counts.sum()
    parts = bins * UPSAMPLE
    width = (old[1] - old[0]) / parts
    centers = torch.linspace(old_low, old_high, parts + 1, device=width.device)[:-1]
    edges = torch.linspace(float(low), float(high), bins + 1, device=width.device)
    target = torch.bucketize(centers + 0.5 * width, edges, right=True) - 1
    shares = (counts / UPSAMPLE).repeat_interleave(UPSAMPLE)
    return torch.bincount(target.clamp(0, bins - 1), shares, minlength=bins)


class HistogramRecord(RangeRecord):
    """Records a histogram; a subclass chooses the range from it.

    The record equals torch.ao's ``HistogramObserver`` bit for bit (torch 2.13).

    Attributes:
        histogram: float32 counts, shape ``(bins,)``; fractional once the range has grown.
        min_val: float32, shape ``()``: the left edge of the first bin.
        max_val: float32, shape ``()``: the right edge of the last bin.
    """

    histogram: Tensor

    def __init__(self, spec: QuantSpec, label: str = "", bins: int = BINS) -> None:
        super().__init__(spec, label)
        self.register_buffer("histogram", torch.zeros(bins))

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.histogram)

    def observe(self, x: Tensor) -> None:
        """Count the values of ``x``, after growing the range to hold them."""
        x = x.to(self.histogram.dtype)
        low, high = torch.aminmax(x)
        self.require_finite(low, high)
        self.count(x, low, high)

    def count(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        """Count the values of the float32 tensor ``x``, whose extremes are ``low`` and ``high``."""
        low = torch.minimum(low, self.min_val)
        high = torch.maximum(high, self.max_val)
        if bool(torch.isfinite(high - low)):
            counts = histogram(x, self.bins, float(low), float(high))
            if self.observed:
                counts += spread_over(self.histogram, (self.min_val, self.max_val), low, high)
            self.histogram.copy_(counts)
        self.min_val.copy_(low)
        self.max_val.copy_(high)

    @abstractmethod
    def find_range(self) -> tuple[Tensor, Tensor]:
        """Return the low and high end of the range of a non-empty record, both of shape ``()``."""

    def calculate_qparams(self) -> QParams:
        """Return the qparams of the range chosen from the record."""
        self.require_observed()
        low, high = self.min_val, self.max_val
        if bool(torch.isfinite(high - low)):  # else too wide for bins, and kept
            low, high = self.find_range()
        return qparams_from_range(low, high, self.spec)
