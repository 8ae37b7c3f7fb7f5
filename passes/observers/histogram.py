"""The range with the least estimated error among ranges that cut more and more of the tails."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from itertools import islice

import torch
from torch import Tensor

from quantfx.passes.observers.histogram_record import HistogramRecord

# Share of all values that one step of the search cuts from one tail.
STEP = 1e-5
LEVELS = 256
# Ranges evaluated at once: 15 rows of 2048 bins stay below the 32768 elements from which torch uses
# threads; on a busy machine waiting for a thread costs more than the whole search.
LARGEST_CHUNK = 15


class HistogramObserver(HistogramRecord):
    """Cuts the tails of the histogram until the quantization error would grow.

    The search equals torch.ao's ``HistogramObserver`` (torch 2.13) in its result, but is arranged
    differently. The order of ranges depends on the histogram and not on the errors, so the ranges
    are generated first, over integers, and their errors are computed in batches.
    """

    def find_range(self) -> tuple[Tensor, Tensor]:
        """Return the low and high end with the least error, both of shape ``()``."""
        width = (self.max_val - self.min_val) / self.bins
        start, end = 0, self.bins - 1
        if float(width) > 0.0:
            start, end = least_error_bins(self.histogram.cpu(), float(width))
        return self.min_val + width * start, self.min_val + width * (end + 1)


def least_error_bins(histogram: Tensor, width: float) -> tuple[int, int]:
    """Return the last range of bins, both inclusive, before the error grows.

    Args:
        histogram: float32 counts, shape ``(bins,)``.
        width: Width of one bin, positive.
    """
    best, best_error = (0, len(histogram) - 1), math.inf
    ranges = narrowing_ranges(histogram)
    size = 4
    # The power of two of the width scales every error alike; without it no cube can overflow.
    mantissa, _ = math.frexp(width)
    while chunk := list(islice(ranges, size)):
        errors: list[float] = quantization_errors(histogram, mantissa, chunk).tolist()
        for candidate, error in zip(chunk, errors, strict=True):
            if error > best_error:
                return best
            best, best_error = candidate, error
        size = min(2 * size, LARGEST_CHUNK)
    return best


@cache
def quantiles() -> tuple[Tensor, Tensor]:
    """Return the lower and the negated upper quantile after 0, 1, 2, ... steps.

    Float64, rising, and summed one by one as torch.ao does, so that the numbers are identical.
    """
    lower = torch.full((round(1 / STEP) + 2,), STEP, dtype=torch.float64)
    minus_upper = lower.clone()
    lower[0], minus_upper[0] = 0.0, -1.0
    return lower.cumsum(0), minus_upper.cumsum(0)


@cache
def quantile_lists() -> tuple[list[float], list[float]]:
    """Return ``quantiles()`` as numbers."""
    lower, minus_upper = quantiles()
    return lower.tolist(), minus_upper.tolist()


def steps_to_pass(histogram: Tensor) -> tuple[list[int], list[int]]:
    """Return, per bin, how many steps each quantile takes to pass it.

    1. ``rises[b]``: steps until the lower quantile exceeds the cumulative count of bin b.
    2. ``falls[b]``: steps until the upper quantile is below it.
    """
    total = float(histogram.sum())
    cumulative = torch.cumsum(histogram, dim=0)
    lower, minus_upper = quantiles()
    rises = _steps_to_exceed(cumulative, lower, total)
    falls = _steps_to_exceed(-cumulative, minus_upper, total)
    return rises.tolist(), falls.tolist()


def _steps_to_exceed(counts: Tensor, levels: Tensor, total: float) -> Tensor:
    """Return the index of the first of the rising ``levels * total`` above each count.

    Levels are one STEP apart, so division finds the index to within two; the exact test is in
    float32, as torch.ao does it.
    """
    guess = ((counts.double() / total - levels[0]) / STEP).long()
    steps = guess - 1
    for offset in range(-1, 3):  # one by one: indexing uses threads for 3000 elements or more
        nearby = levels[(guess + offset).clamp_(0, len(levels) - 1)]
        steps += (nearby * total).float() <= counts
    return steps


def narrowing_ranges(histogram: Tensor) -> Iterator[tuple[int, int]]:
    """Yield each range of bins ``(start, end)`` that the search tries in turn.

    A step moves the lower quantile, and ``start`` with it, if that skips more bins than moving the
    upper quantile would; otherwise it moves the upper quantile and ``end``. Steps that move neither
    bin move the upper quantile and are skipped.
    """
    rises, falls = steps_to_pass(histogram)
    falls_from_end = falls[::-1]
    lower, minus_upper = quantile_lists()
    start, end = 0, len(rises) - 1
    low_steps = high_steps = 0
    while start < end and lower[low_steps] < -minus_upper[high_steps]:
        next_start = min(bisect_right(rises, low_steps + 1), end)
        next_end = len(rises) - 1 - bisect_right(falls_from_end, high_steps + 1)
        if next_start - start > max(end - next_end, 0):
            start, low_steps = next_start, low_steps + 1
        elif next_end < end:
            end, high_steps = max(next_end, start), high_steps + 1
        else:
            high_steps = falls[end] - 1
            continue
        yield start, end


def quantization_errors(histogram: Tensor, width: float, ranges: list[tuple[int, int]]) -> Tensor:
    """Estimate the squared error of rounding to 256 levels spread over each range of bins.

    The values of a source bin lie evenly in it; each of its parts that falls into one level's
    interval adds ``density * (b^3 - a^3) / 3``, for distances a to b from the level. Values
    outside the range belong to the outermost levels. Every operation is in float32 and in
    torch.ao's order, so that errors compare exactly as in torch.ao, even near ties.

    Args:
        histogram: float32 counts, shape ``(bins,)``.
        width: Width of one bin.
        ranges: First and last bin of each range.

    Returns:
        float32, shape ``(len(ranges),)``.
    """
    start, end = torch.tensor(ranges).T.unsqueeze(2)
    level = width * (end - start + 1).double() / LEVELS
    half = (level / 2).float()
    level = level.float()
    filled = histogram.nonzero().squeeze(1)
    density = histogram[filled] / width

    left = (filled - start).float() * width
    right = left + width
    first = torch.div(left, level, rounding_mode="floor").clamp_(0, LEVELS - 1)
    last = torch.div(right, level, rounding_mode="floor").clamp_(0, LEVELS - 1)
    from_left = left - (first + 0.5) * level
    to_right = right - (last * level + half)

    terms = density * ((_cube(half) - _cube(from_left)) / 3)
    terms += (last - first - 1) * (density * ((_cube(half) - _cube(-half)) / 3))
    terms += density * ((_cube(to_right) - _cube(-half)) / 3)
    # The order of a float32 sum depends on its length: sum over all bins, including empty bins.
    return terms.new_zeros(len(ranges), len(histogram)).index_copy_(1, filled, terms).sum(dim=1)


def _cube(x: Tensor) -> Tensor:
    return x * x * x
