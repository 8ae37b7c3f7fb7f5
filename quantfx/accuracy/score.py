"""The score of a model on some items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """A value with its uncertainty.

    Attributes:
        value: Value of the metric, higher is better; NaN if it failed.
        error: Standard error of ``value`` over the items; None if unknown.
        seconds: Time that the metric took.
        failure: Why there is no value; empty if there is.
    """

    value: float
    error: float | None = None
    seconds: float = 0.0
    failure: str = ""

    @property
    def lower(self) -> float:
        """The value minus one standard error."""
        return self.value - (self.error or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return the score as plain data."""
        return {"value": self.value, "error": self.error, "seconds": self.seconds}


def error_of_folds(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean of folds; None for fewer than two or non-numbers."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((each - mean) ** 2 for each in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def error_without_each(values: Sequence[float]) -> float | None:
    """Return the jackknife's standard error from the values without each item in turn.

    B. Efron and C. Stein, "The jackknife estimate of variance", 1981. Equal values, infinite ones
    included, have no error.
    """
    if len(values) < 2:
        return None
    if len(set(values)) == 1:
        return 0.0
    if not all(map(math.isfinite, values)):
        return None
    mean = math.fsum(values) / len(values)
    spread = math.fsum((each - mean) ** 2 for each in values)
    return math.sqrt(spread * (len(values) - 1) / len(values))


def error_of_share(part: float, whole: float) -> float:
    """Return the standard error of a share by Laplace's rule of succession.

    Args:
        part: Number of positives.
        whole: Number of all.
    """
    share = (part + 1) / (whole + 2)
    return math.sqrt(share * (1 - share) / (whole + 2))
