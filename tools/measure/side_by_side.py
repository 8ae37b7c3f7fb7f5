"""The speed of one callable over another, measured in turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Time of the baseline over time of the candidate; above 1 the candidate is faster.

    Attributes:
        median: Median over the rounds.
        low: Lower quartile; a busy machine makes the extremes meaningless.
        high: Upper quartile.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def ratio(
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    *,
    rounds: int = 15,
    calls: int = 5,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Time ``calls`` calls of each in every round and compare within the round.

    A busy machine slows both sides of a round alike, so ratios hold where milliseconds do not.
    Who goes first alternates.

    Raises:
        ValueError: ``rounds`` or ``calls`` is less than 1.
    """
    if rounds < 1 or calls < 1:
        raise ValueError(f"rounds and calls must be at least 1, got {rounds} and {calls}")
    for _ in range(warmup):
        baseline()
        candidate()
    ratios: list[float] = []
    for turn in range(rounds):
        if turn % 2:
            candidate_time = _seconds(candidate, calls, clock)
            baseline_time = _seconds(baseline, calls, clock)
        else:
            baseline_time = _seconds(baseline, calls, clock)
            candidate_time = _seconds(candidate, calls, clock)
        ratios.append(baseline_time / candidate_time)
    return summarize(ratios)


def summarize(ratios: Sequence[float]) -> Ratio:
    """Return the median and the quartiles of ``ratios``, of which there is at least one."""
    if len(ratios) == 1:  # statistics.quantiles wants two
        return Ratio(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high)


def _seconds(call: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        call()
    return clock() - start
