"""Sums over batches: the error between two tensors, and how a quantized tensor fills its range."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.inputs.leaves import leaves_in
from quantfx.passes.quant.qdq import TensorQParams

# The share of values that must lie in a range for the rest to count as outliers.
_BULK = 0.999


@dataclass(frozen=True)
class Fidelity:
    """How close a tensor is to the exact tensor.

    Attributes:
        sqnr: Signal to quantization noise ratio in dB, ``10 log10(sum x^2 / sum (y - x)^2)``;
            infinite where both are equal.
        cosine: Cosine of the angle between them, 1 where both are equal.
    """

    sqnr: float
    cosine: float


def decibels(sqnr: float) -> str:
    """Return ``23.1 dB``, or ``exact`` where both are equal."""
    return "exact" if sqnr == math.inf else f"{sqnr:.1f} dB"


@dataclass
class ErrorTally:
    """Adds up signal and noise of the float tensors in pairs of results."""

    signal: float = 0.0
    noise: float = 0.0
    size: float = 0.0
    product: float = 0.0
    elements: int = 0

    def add(self, exact: Any, found: Any) -> None:
        """Add a pair of tensors, or of structures of tensors; integers are skipped."""
        pairs = zip(leaves_in(exact), leaves_in(found), strict=True)
        for x, y in pairs:
            if isinstance(x, Tensor) and x.is_floating_point() and x.numel():
                self._add(x.detach(), y.detach())

    def _add(self, x: Tensor, y: Tensor) -> None:
        if x.shape != y.shape:  # whatever the cause, none of the signal is right
            y = torch.zeros_like(x)
        sums = _sums(x, y)
        if not all(map(math.isfinite, sums)):  # a mask is infinite in both; else all is wrong
            same = ~torch.isfinite(x) & ((x == y) | (torch.isnan(x) & torch.isnan(y)))
            sums = _sums(x.where(~same, 0), y.where(~same, 0))
        self.elements += x.numel()
        self.signal += sums[0]
        self.size += sums[1]
        self.product += sums[2]
        self.noise += sums[3]

    def fidelity(self) -> Fidelity | None:
        """Return how close the tensors were; None if no float tensor was added."""
        if not self.elements:
            return None
        if not math.isfinite(self.noise):
            return Fidelity(-math.inf, 0.0)
        if not self.noise:
            return Fidelity(math.inf, 1.0)
        ratio = self.signal / self.noise
        norm = math.sqrt(self.signal * self.size)
        cosine = self.product / norm if norm else 0.0
        return Fidelity(10 * math.log10(ratio) if ratio else -math.inf, cosine)


@dataclass
class CodeTally:
    """Counts the integers that a quantize yields for exact values, and records the channels.

    Attributes:
        qparams: Qparams of the quantize.
        counts: How often each integer occurred, from ``quant_min``; a copy in ``int64``.
        clipped: Number of values outside the range.
        channels: Largest magnitude of each channel, None before the first value.
    """

    qparams: TensorQParams
    counts: Tensor = field(init=False)
    clipped: int = 0
    channels: Tensor | None = None

    def __post_init__(self) -> None:
        self.counts = torch.zeros(
            self.qparams.quant_max - self.qparams.quant_min + 1, dtype=torch.int64
        )

    def add(self, x: Tensor, channel: int | None) -> None:
        """Count the exact values ``x`` that are finite.

        Args:
            x: Tensor of any shape.
            channel: Dimension of the channels; None for none. Channels are ignored if their number
                changes.
        """
        given = self.qparams
        codes = torch.round(x.detach().float() / given.scale) + given.zero_point
        codes = codes[torch.isfinite(codes)]
        inside = codes.clamp(given.quant_min, given.quant_max)
        self.clipped += int((codes != inside).sum())
        index = (inside - given.quant_min).long()
        self.counts += torch.bincount(index, minlength=len(self.counts))
        if channel is None or x.dim() < 2 or not x.numel():
            return
        rows = x.detach().abs().movedim(channel, -1)
        largest = rows.reshape(-1, rows.shape[-1]).amax(0)
        known = self.channels
        if known is None:
            self.channels = largest
        elif len(known) == len(largest):
            self.channels = torch.maximum(known, largest)
        else:
            self.channels = largest[:0]

    @property
    def total(self) -> int:
        """Number of values seen."""
        return int(self.counts.sum())

    @property
    def clipped_share(self) -> float:
        """Share of values outside of the range."""
        return self.clipped / max(self.total, 1)

    @property
    def used_range(self) -> float:
        """Share of the integers between the smallest and the largest that occurred."""
        return _width(self.counts) / len(self.counts)

    @property
    def bulk_range(self) -> float:
        """Share of the integers that hold 99.9 % of the values other than 0."""
        counts = self.counts.clone()
        zero = self.qparams.zero_point - self.qparams.quant_min
        if 0 <= zero < len(counts):
            counts[zero] = 0
        total = int(counts.sum())
        if not total:
            return 0.0
        spare = (1 - _BULK) * total / 2
        below = counts.cumsum(0)
        above = counts.flip(0).cumsum(0).flip(0)
        return _width(torch.where((below > spare) & (above > spare), counts, 0)) / len(counts)

    @property
    def channel_spread(self) -> float:
        """Largest magnitude of a channel over the median of channels that are not silent."""
        if self.channels is None:
            return 1.0
        loud = self.channels[(self.channels > 0) & torch.isfinite(self.channels)].float()
        return float(loud.max() / loud.median()) if len(loud) else 1.0

    @property
    def silent_channels(self) -> int:
        """Number of channels that held only zeros."""
        return 0 if self.channels is None else int((self.channels == 0).sum())


def _sums(x: Tensor, y: Tensor) -> tuple[float, float, float, float]:
    """Return ``sum x^2``, ``sum y^2``, ``sum x y`` and ``sum (y - x)^2``."""
    a, b = x.float().flatten(), y.float().flatten()
    difference = b - a
    return float(a @ a), float(b @ b), float(a @ b), float(difference @ difference)


def _width(counts: Tensor) -> int:
    at = counts.nonzero()
    return int(at[-1] - at[0]) + 1 if len(at) else 0
