"""Histograms of each channel of a tensor, which give the histogram of the rescaled tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BINS = 512  # per channel, up to a power of two on both sides of zero; even, so that zero is an edge
_PARTS = 4  # each bin is spread over this many places
_LEAST_EXPONENT = -110  # a bin's width, and its reciprocal, are normal
# Elements counted at once: index tensors of a long sequence could need more memory than the model.
_CHUNK = 2**20


class ChannelRecord(nn.Module):
    """Counts the values of each channel, the last dimension, on a range that grows with the data.

    Ranges are powers of two around zero, so a growing range merges whole bins and loses only
    resolution.

    Attributes:
        counts: float32, shape ``(channels, BINS)``; empty before the first tensor.
        exponent: int64, ``(channels,)``: the range is ``[-2^exponent, 2^exponent]``.
        low: float32, ``(channels,)``: smallest value.
        high: float32, ``(channels,)``: largest value.
        fourths: float64, ``(channels,)``: sum of fourth powers.
        rows: int64, ``()``: values per channel.
    """

    counts: Tensor
    exponent: Tensor
    low: Tensor
    high: Tensor
    fourths: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(0, BINS))
        self.register_buffer("exponent", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("low", torch.zeros(0))
        self.register_buffer("high", torch.zeros(0))
        self.register_buffer("fourths", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))

    def observe(self, x: Tensor) -> None:
        """Add the non-empty, finite tensor ``x``, shape ``(..., channels)``."""
        rows = x.reshape(-1, x.shape[-1]).float()
        if self.rows == 0:
            self._start(rows)
        low, high = torch.aminmax(rows, dim=0)
        self.low = torch.minimum(self.low, low)
        self.high = torch.maximum(self.high, high)
        self._grow(torch.maximum(-self.low, self.high))
        for part in torch.split(rows, max(1, _CHUNK // rows.shape[1])):
            self._count(part)
        self.rows = self.rows + len(rows)

    def add(self, other: ChannelRecord) -> None:
        """Add the record ``other`` of the same channels, as if its values had been seen here."""
        if other.rows == 0:
            return
        if self.rows == 0:
            for name, value in other.named_buffers():
                setattr(self, name, value.clone())
            return
        exponent = torch.maximum(self.exponent, other.exponent)
        self.counts = self._merged(exponent) + other._merged(exponent)
        self.exponent = exponent
        self.low = torch.minimum(self.low, other.low)
        self.high = torch.maximum(self.high, other.high)
        self.fourths = self.fourths + other.fourths
        self.rows = self.rows + other.rows

    def size(self) -> Tensor:
        """Return the fourth root of each channel's mean fourth power, float64, ``(channels,)``."""
        return (self.fourths / self.rows).pow(0.25)

    def histogram(self, divisor: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the histogram of ``x / divisor`` over all channels, with its low and high end.

        Args:
            divisor: Positive, float32, shape ``(channels,)``.
            bins: Number of bins of the result.

        Returns:
            float32, of shapes ``(bins,)``, ``()`` and ``()``.
        """
        lows, highs = self.low / divisor, self.high / divisor
        low, high = lows.min(), highs.max()
        channel, bin_ = self.counts.nonzero(as_tuple=True)
        width = torch.exp2(self.exponent.float()) * (2 / BINS) / divisor
        share = self.counts[channel, bin_] / _PARTS
        total = share.new_zeros(bins)
        for part in range(_PARTS):
            place = (bin_ - BINS // 2 + (part + 0.5) / _PARTS) * width[channel]
            place = place.clamp(lows[channel], highs[channel])
            index = ((place - low) / (high - low) * bins).long().clamp_(0, bins - 1)
            total += torch.bincount(index, share, minlength=bins)
        return total, low, high

    def _start(self, rows: Tensor) -> None:
        channels = rows.shape[1]
        self.counts = rows.new_zeros(channels, BINS)
        self.exponent = torch.full_like(self.counts[:, 0], _LEAST_EXPONENT, dtype=torch.int64)
        self.low, self.high = rows[0].clone(), rows[0].clone()
        self.fourths = rows.new_zeros(channels, dtype=torch.float64)

    def _grow(self, largest: Tensor) -> None:
        """Merge pairs of bins until ``largest`` fits each range."""
        exponent = torch.log2(largest.clamp(min=2.0**_LEAST_EXPONENT)).ceil().long()
        exponent = torch.maximum(exponent, self.exponent)
        if not torch.equal(exponent, self.exponent):
            self.counts, self.exponent = self._merged(exponent), exponent

    def _merged(self, exponent: Tensor) -> Tensor:
        """Return the counts for ranges with larger exponents."""
        steps = exponent - self.exponent
        half = BINS // 2
        bins = torch.arange(-half, half, device=steps.device)
        target = (bins >> steps.clamp(max=BINS.bit_length())[:, None]) + half
        return torch.zeros_like(self.counts).scatter_add_(1, target, self.counts)

    def _count(self, rows: Tensor) -> None:
        half = BINS // 2
        place = rows * (half * torch.exp2(-self.exponent.float()))
        index = place.floor().long().clamp_(-half, half - 1)
        index += half + BINS * torch.arange(len(self.counts), device=rows.device)
        counts = torch.bincount(index.flatten(), minlength=self.counts.numel())
        self.counts = self.counts + counts.reshape(self.counts.shape)
        self.fourths = self.fourths + rows.double().pow(4).sum(0)
