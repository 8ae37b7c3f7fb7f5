"""Even out activation channels by one share of their unevenness for all tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from quantfx.passes.errors import PipelineError
from quantfx.passes.observe.smoothing import SmoothableTensor, Smoothed, Smoothing
from quantfx.passes.pipeline.base import Context

# Channels that are (nearly) silent in calibration count as this share of the whole tensor's rms:
# a tiny divisor would blow up whatever they hold later.
_SILENT = 2**-7


@dataclass(frozen=True)
class SmoothActivations(Smoothing):
    """``s = rms(x)^alpha / rms(w)^(1 - alpha)``, divided by its geometric mean.

    This is SmoothQuant (Xiao et al. 2023, equation 4) with root mean squares for maxima: a single
    outlier then does not decide for its channel.

    Attributes:
        alpha: 0 evens out the weights, 1 the activations.
        rows: Least values of each channel that calibration must have seen; with fewer, s follows
            chance. The classifier of EfficientNet-Lite0 sees one row an image: 64 of them cost
            4 dB, and more images win nothing.
    """

    alpha: float = 0.8
    rows: int = 1024

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise PipelineError(
                f"alpha={self.alpha} is not between 0 and 1", rule="number-range", site="alpha"
            )
        require_rows(self.rows)

    name: ClassVar[str] = "smooth-activations"

    def choose(self, tensor: SmoothableTensor, context: Context) -> Smoothed | str:
        """Return s, unless too little was seen."""
        observer = tensor.observer
        scale = smoothing_scale(observer.channels.rms(), rms_of(tensor.weights), self.alpha)
        return too_few(tensor, self.rows) or Smoothed(scale, observer.search)


def require_rows(rows: int) -> None:
    """Refuse a least number of rows that is none.

    Raises:
        PipelineError: it is not positive.
    """
    if rows < 1:
        raise PipelineError(f"rows={rows} is not positive", rule="number-range", site="rows")


def too_few(tensor: SmoothableTensor, rows: int) -> str:
    """Return that fewer than ``rows`` values of each channel were seen; empty if not."""
    seen = int(tensor.observer.channels.rows)
    return f"{seen} values per channel, of {rows} needed" if seen < rows else ""


def rms_of(weights: tuple[Tensor, ...]) -> Tensor:
    """Return the root mean square of each input channel of weights, float64, ``(channels,)``."""
    return torch.cat(weights).double().square().mean(0).sqrt()


def smoothing_scale(activation: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """Return s, float64, shape ``(channels,)``, of geometric mean 1.

    Args:
        activation: Size of each channel of the activation, float64, ``(channels,)``.
        weight: Size of what each is multiplied with, of the same shape.
        alpha: How much goes into the weights.
    """
    log = alpha * _audible(activation).log() - (1 - alpha) * _audible(weight).log()
    return (log - log.mean()).exp()


def _audible(size: Tensor) -> Tensor:
    overall = size.square().mean().sqrt()
    return size.clamp(min=float(overall * _SILENT)) if overall > 0 else torch.ones_like(size)
