"""The results of a benchmark as data."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from quantfx.tools.bench.accuracy import Accuracy
from quantfx.tools.bench.breakdown import Breakdown
from quantfx.tools.measure.machine import Machine
from quantfx.tools.measure.side_by_side import Ratio, summarize


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a measurement.

    Attributes:
        rounds: Rounds, in each of which every engine has one turn.
        calls: Timed calls per turn.
        warmup: Calls of each engine before the first round.
        threads: Threads of every engine.
        batch: Rows of a batch of a named network.
    """

    rounds: int
    calls: int
    warmup: int
    threads: int
    batch: int


@dataclass(frozen=True)
class Measured:
    """An engine that ran.

    Attributes:
        engine: Its name.
        title: Its description.
        build_seconds: Time to import, quantize, compile and run the first call, from empty caches.
        accuracy: Accuracy against the float network.
        peak_bytes: Most resident memory of its process, without the compilers that it starts.
        seconds: Seconds of one call, the mean over a turn; one entry per round.
    """

    engine: str
    title: str
    build_seconds: float
    accuracy: Accuracy
    peak_bytes: int
    seconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Milliseconds of a call: the median of the rounds."""
        return statistics.median(self.seconds) * 1e3

    @property
    def min_ms(self) -> float:
        """Milliseconds of a call: the fastest round."""
        return min(self.seconds) * 1e3


@dataclass(frozen=True)
class Missed:
    """An engine that has no figures.

    Attributes:
        engine: Its name.
        title: Its description.
        reason: Starts with ``skipped`` if the engine is not available here, with ``failed`` if it
            failed.
    """

    engine: str
    title: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """All engines on one model.

    Attributes:
        model: Its name.
        rows: In the order of the engines.
        breakdowns: Breakdowns of this library's engines, if asked for; a text says why one is
            missing.
    """

    model: str
    rows: tuple[Measured | Missed, ...]
    breakdowns: Mapping[str, Breakdown | str] = field(default_factory=dict[str, Breakdown | str])

    def speedup(self, row: Measured, baseline: str) -> Ratio | None:
        """Return the speed-up over the baseline, round by round; None if that did not run."""
        for other in self.rows:
            if isinstance(other, Measured) and other.engine == baseline:
                pairs = zip(other.seconds, row.seconds, strict=True)
                return summarize([theirs / ours for theirs, ours in pairs])
        return None


@dataclass(frozen=True)
class BenchReport:
    """All models on one machine."""

    machine: Machine
    settings: Settings
    comparisons: tuple[Comparison, ...]
