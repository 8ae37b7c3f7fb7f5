"""The factor that divides each channel of an activation and multiplies the weight after it."""

from __future__ import annotations

from torch import Tensor, ones_like

from quantfx.passes.errors import PipelineError

# Channels that are (nearly) silent in the data count as this share of the whole tensor's rms: a
# tiny divisor would blow up any later values.
_SILENT = 2**-7


def require_share(alpha: float) -> None:
    """Refuse an ``alpha`` outside of 0 to 1.

    Raises:
        PipelineError: ``alpha`` is outside of 0 to 1.
    """
    if not 0 <= alpha <= 1:
        message = f"alpha={alpha} is not between 0 and 1"
        raise PipelineError(message, rule="number-range", site="alpha")


def require_rows(rows: int) -> None:
    """Refuse a minimum number of ``rows`` that is not positive.

    Raises:
        PipelineError: ``rows`` is not positive.
    """
    if rows < 1:
        raise PipelineError(f"rows={rows} is not positive", rule="number-range", site="rows")


def smoothing_scale(activation: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """Return ``activation^alpha / weight^(1 - alpha)``, divided by its geometric mean.

    This is SmoothQuant (Xiao et al. 2023, equation 4) with sizes other than maxima: a single
    outlier then does not decide for its channel.

    Args:
        activation: Size of each channel, float64, ``(channels,)``.
        weight: Root mean square of each channel's factors, float64, ``(channels,)``.
        alpha: How much goes into the weights: 0 evens out the weights, 1 the activations.

    Returns:
        float64, ``(channels,)``.
    """
    log = alpha * _audible(activation).log() - (1 - alpha) * _audible(weight).log()
    return (log - log.mean()).exp()


def _audible(size: Tensor) -> Tensor:
    overall = size.square().mean().sqrt()
    return size.clamp(min=float(overall * _SILENT)) if overall > 0 else ones_like(size)
