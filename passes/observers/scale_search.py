"""Search, per channel of a weight, for the scale with the least rounding error."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

# torch hands larger operands to its thread pool. Many calls that each wait for a second thread take
# ten times longer than one thread in its cache, so here each thread takes whole blocks.
_BLOCK = 2**15 - 1
_FEW_BLOCKS = 3
_LEAST_LENGTH = 32  # counts: the values kept for each candidate and row are an operand too
# Number of candidates over the whole range, then around the best candidate, for channels up to this
# many values: the error of a short channel jumps from scale to scale, a long channel's is smooth.
_COUNTS: tuple[tuple[float, int, int], ...] = (
    (32, 24, 8),
    (256, 16, 8),
    (1024, 12, 6),
    (math.inf, 8, 4),
)
_SHRINK, _GROW, _CHANCE = 0.5, 0.01, 0.25


@dataclass(frozen=True)
class IntegerRange:
    """Smallest and largest integer, on both sides of zero."""

    low: int
    high: int


@dataclass(frozen=True)
class Block:
    """Some channels of a weight, one per row.

    Attributes:
        rows: float32, shape ``(channels, values)``; squares of the values are normal numbers.
        least: The smallest scale allowed, shape ``(channels,)``.
        around: A second lower limit; candidates may exceed it by the same factor as
            ``absmax / high``. Same shape; zero for none.
    """

    rows: Tensor
    least: Tensor
    around: Tensor


def in_blocks(length: int, channels: int, search: Callable[[slice], Tensor]) -> Tensor:
    """Return ``search`` of slices of channels, joined; on torch's number of threads.

    Args:
        length: Values of a channel.
        channels: Number of channels.
        search: Maps a slice of channels to one value, or row of values, per channel. Modes of the
            calling thread, such as ``no_grad``, do not apply inside.
    """
    size = max(1, _BLOCK // max(length, _LEAST_LENGTH))
    parts = [slice(start, start + size) for start in range(0, max(channels, 1), size)]
    workers = torch.get_num_threads()
    if workers == 1 or len(parts) <= _FEW_BLOCKS:
        return torch.cat([search(part) for part in parts])
    with ThreadPoolExecutor(workers) as pool:
        return torch.cat(list(pool.map(search, parts)))


def best_scales(block: Block, integers: IntegerRange) -> Tensor:
    """Return the scale with the least squared error of each row.

    1. ``absmax / high`` and the usual ``absmax / (high + 0.5)`` are candidates.
    2. A smaller scale clips the largest magnitude by ``absmax - farthest * scale``; scales for
       which the square of that exceeds the error of step 1 are not tried.
    3. A larger scale rounds worse by its square, but with few values chance decides: the shorter
       the row, the larger the candidates go.
    4. The candidates lie evenly between these limits, then once more around the best.
    """
    rows = block.rows
    error_of = _Errors(rows, integers)
    largest = rows.abs().amax(1)
    whole = torch.where(largest > 0, largest, 1.0) / integers.high
    least = torch.maximum(block.least, block.around)
    usual = whole * (integers.high / (integers.high + 0.5))
    best, error = error_of.least(torch.stack((whole, usual)).clamp(min=least))
    low = (largest - error.sqrt()) / max(integers.high, -integers.low)
    low = torch.maximum(low.clamp(min=whole * _SHRINK), least)
    grow = 1 + max(_GROW, _CHANCE / math.sqrt(max(rows.shape[1], 1)))
    high = torch.maximum(torch.maximum(whole, block.around) * grow, low)
    spread, around = next(counts for up_to, *counts in _COUNTS if rows.shape[1] <= up_to)
    step = (high - low) / (spread - 1)
    places = torch.arange(spread, dtype=rows.dtype, device=rows.device)
    found = error_of.least(low + step * places.unsqueeze(1))
    best, error = _nearer(found, (best, error))
    places = torch.linspace(-1, 1, around + 2, device=rows.device)[1:-1]
    found = error_of.least((best + step * places.unsqueeze(1)).clamp(min=low))
    return _nearer(found, (best, error))[0]


def _nearer(found: tuple[Tensor, Tensor], best: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    better = found[1] < best[1]
    return torch.where(better, found[0], best[0]), torch.where(better, found[1], best[1])


class _Errors:
    """Squared errors of the rows, in memory that is reused for each candidate."""

    def __init__(self, rows: Tensor, integers: IntegerRange) -> None:
        self.rows = rows
        self.integers = integers
        self.steps = torch.empty_like(rows)
        self.off = torch.empty_like(rows)

    def least(self, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Return each row's best of ``scales``, shape ``(candidates, rows)``, with its error.

        Of equal errors the first wins. ``fake_quantize_per_channel_affine``, which is not
        vectorized, would take eight times longer. In such small blocks the number of calls matters
        as well.
        """
        norms = torch.empty_like(scales)
        inverses = scales.reciprocal().unsqueeze(2)
        for inverse, norm in zip(inverses.unbind(), norms.unbind(), strict=True):
            torch.mul(self.rows, inverse, out=self.steps)
            torch.round(self.steps, out=self.off)
            self.off.clamp_(self.integers.low, self.integers.high).sub_(self.steps)
            torch.linalg.vector_norm(self.off, dim=1, out=norm)
        norms.mul_(scales).square_()
        error, place = norms.min(0)
        return scales.gather(0, place.unsqueeze(0)).squeeze(0), error
