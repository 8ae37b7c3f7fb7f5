"""The range whose integer grid gives the least squared error on the observed values."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.observers.histogram_record import HistogramRecord
from quantfx.passes.quant.qparams import qparams_from_range
from quantfx.passes.quant.spec import QuantSpec

# Each end of the range is tried at the widest end times RATIO^0, RATIO^1, ... RATIO^15 (1.3 %),
# then twice more around the best, each time on a grid four times as fine (finally 1.8 % apart).
RATIO = 0.75
COARSE = 16
FINER = (1 / 4, 1 / 16)
# Elements evaluated at once: below the 32768 from which torch uses threads, which cost more than
# they save here, and small enough for a CPU's second-level cache.
CHUNK = 32_000


class MinSquaredErrorObserver(HistogramRecord):
    """Searches both ends of the range for the least squared quantization error.

    Unlike ``HistogramObserver`` it evaluates the actual scale and zero point of a range: with zero
    included, an integer zero point, ``eps`` and the integers of the spec.
    """

    def find_range(self) -> tuple[Tensor, Tensor]:
        """Return the low and high end with the least error, both of shape ``()``."""
        if self.min_val == self.max_val:
            return self.min_val, self.max_val
        edges, weights = _weighted_edges(self.histogram, self.min_val, self.max_val)
        lowest, highest = self.min_val.double().clamp(max=0), self.max_val.double().clamp(min=0)
        if self.spec.symmetric:  # the larger side decides: search only that side
            lowest, highest = torch.zeros_like(lowest), torch.maximum(-lowest, highest)
        powers = torch.arange(COARSE, device=edges.device)
        low, high = lowest, highest
        for finer in (1.0, *FINER):
            lows = (low * RATIO ** (finer * powers)).clamp(min=lowest)
            highs = (high * RATIO ** (finer * powers)).clamp(max=highest)
            # ``unique`` leaves one candidate for an end that is zero; ties go to the widest range.
            grid = torch.cartesian_prod(torch.unique(lows), torch.unique(highs).flip(0))
            low, high = grid[squared_errors(edges, weights, grid, self.spec).argmin()]
            powers = torch.arange(-3, 4, device=edges.device)
        return (-high, high) if self.spec.symmetric else (low, high)


def _weighted_edges(histogram: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bin edges where the density changes, and how much it falls at each.

    Both are float64 of one shape ``(edges,)``. A sum over bins of ``density * (F(right) -
    F(left))`` is the sum over edges of ``weight * F(edge)``; few values leave few edges.
    """
    density = histogram.double() * (len(histogram) / (high - low).double())
    nothing = density.new_zeros(1)
    weights = -torch.diff(density, prepend=nothing, append=nothing)
    ends = torch.linspace(0, 1, len(weights), dtype=torch.float64, device=weights.device)
    edges = low.double() + (high - low).double() * ends
    changes = weights != 0
    return edges[changes], weights[changes]


def squared_errors(edges: Tensor, weights: Tensor, ranges: Tensor, spec: QuantSpec) -> Tensor:
    """Return the squared error of quantizing the histogram with each range's qparams.

    With ``t = x / scale + zero_point`` and ``n = clamp(round(t))``, the error of x is
    ``scale^2 * (t - n)^2``. Its integral is ``scale^3 * (n / 12 + (t - n)^3 / 3)``: every whole
    step adds 1/12; the cubic term joins the steps and continues outside the integer range.

    Args:
        edges: float64, shape ``(edges,)``, from ``_weighted_edges``.
        weights: float64, shape ``(edges,)``.
        ranges: Low and high ends, shape ``(ranges, 2)``.
        spec: Scheme, eps and integer range.

    Returns:
        float64, shape ``(ranges,)``.
    """
    qparams = qparams_from_range(ranges[:, 0], ranges[:, 1], spec)
    scale = qparams.scale.double()
    rows = max(1, CHUNK // len(edges))
    chunks = zip(torch.split(scale, rows), torch.split(qparams.zero_point, rows), strict=True)
    sums = [_integrals(edges, weights, each, zero, spec) for each, zero in chunks]
    return torch.cat(sums) * (scale**3 / 12)


def _integrals(
    edges: Tensor, weights: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec
) -> Tensor:
    t = edges / scale[:, None]
    t += zero_point[:, None]
    # Rounded by truncation, because ``round`` uses threads for 2048 elements or more: see CHUNK.
    # The direction of ties does not matter, since the integral is continuous there.
    n = t.clamp(spec.quant_min, spec.quant_max).add_(0.5 - spec.quant_min).int()
    n += spec.quant_min
    t -= n
    integral = t * t
    integral *= t
    integral *= 4.0
    integral += n
    return integral.mul_(weights).sum(dim=1)
