"""Trials of a bisection: the pipelines with some permits, and what the check says."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.bisection.ranges import Ranges
from quantfx.passes.errors import PassError
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.pipeline.permits import Permit, Permits, permitting
from quantfx.patterns.errors import QuantfxError, QuantfxWarning


@dataclass(frozen=True)
class Verdict:
    """The outcome of one trial.

    Attributes:
        permitted: ``everything``, a number of permits, or ``all but`` a number.
        good: Whether the check held.
        error: The exception that was raised; None if none was.
        asked: The permits that passes asked for, in order.
    """

    permitted: str
    good: bool
    error: Exception | None
    asked: tuple[Permit, ...]

    @property
    def kind(self) -> str:
        """The kind of failure; empty for none."""
        if self.good:
            return ""
        return "check" if self.error is None else error_kind(self.error)

    def __str__(self) -> str:
        if self.good:
            return "passes the check"
        if self.error is None:
            return "fails the check"
        return f"raises {type(self.error).__name__}: {self.error}".partition("\n")[0]


def error_kind(error: BaseException) -> str:
    """Return what two errors of one fault have in common: class, rule, pass and cause."""
    rule = error.rule if isinstance(error, QuantfxError) else ""
    by = error.site if isinstance(error, PassError) else ""
    return f"{type(error).__name__} {rule} {by} {type(error.__cause__).__name__}"


@dataclass(frozen=True)
class Subject:
    """How a float graph becomes the result that a check looks at.

    Attributes:
        backend: The backend that quantizes.
        graph: A captured graph.
        result: Makes the result that the check is given from the q/dq graph.
        check: Whether the result is good.
        strict: As for ``quantize``.
        statistics: Statistics of the calibration data, for passes that need them.
    """

    backend: Backend
    graph: GraphModule
    result: Callable[[GraphModule], Any]
    check: Callable[[Any], bool]
    strict: bool = True
    statistics: Statistics | None = None

    def holds(self, ranges: Ranges) -> bool:
        """Quantize and check.

        Raises:
            Exception: whatever a pass or the check raises.
        """
        prepared = self.backend.prepare(self.graph, strict=self.strict)
        ranges.settle(prepared)
        quantized = self.backend.convert(prepared, strict=self.strict, statistics=self.statistics)
        return bool(self.check(self.result(quantized)))


class Trials:
    """Runs trials, each set of permits once.

    Args:
        subject: What to try.
        ranges: Ranges of earlier trials.
    """

    def __init__(self, subject: Subject, ranges: Ranges) -> None:
        self._subject = subject
        self._ranges = ranges
        self._known: dict[object, Verdict] = {}

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every trial in order."""
        return tuple(self._known.values())

    def run(self, granted: Collection[Permit]) -> Verdict:
        """Return what the check says with these permits."""
        key = frozenset(granted)
        if key not in self._known:
            self._known[key] = self._try(Permits(key), str(len(key)))
        return self._known[key]

    def run_without(self, refused: Collection[Permit] = ()) -> Verdict:
        """Return what the check says with every permit but these."""
        key = ("all but", frozenset(refused))
        if key not in self._known:
            told = f"all but {len(refused)}" if refused else "everything"
            self._known[key] = self._try(Permits(refused=refused), told)
        return self._known[key]

    @property
    def backend(self) -> Backend:
        """The backend that quantizes in every trial."""
        return self._subject.backend

    def _try(self, permits: Permits, permitted: str) -> Verdict:
        verdict = Verdict(permitted, False, None, ())
        with permitting(permits), warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantfxWarning)  # of sites left float
            try:
                verdict = replace(verdict, good=self._subject.holds(self._ranges))
            except Exception as error:  # any exception is a failure, and is kept
                verdict = replace(verdict, error=error)
                # Release the graphs of the trial that the frames of its error hold.
                each: BaseException | None = error
                while each is not None:
                    traceback.clear_frames(each.__traceback__)
                    each = each.__cause__ or each.__context__
        return replace(verdict, asked=tuple(permits.asked))
