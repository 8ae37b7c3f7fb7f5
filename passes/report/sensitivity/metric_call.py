"""A call of a metric of the user's, which may raise whatever it likes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from quantfx.patterns.errors import QuantfxError


def number_of(metric: Callable[[], Any]) -> float:
    """Return what a metric returns, as a number.

    Args:
        metric: Calls it.

    Raises:
        QuantfxError: it raises, or returns NaN or nothing that is a number; without its subject.
    """
    try:
        value = float(metric())
    except Exception as raised:  # whatever a function of the user's raises
        fix = "" if isinstance(raised, QuantfxError) else "call it with the model by itself"
        message = f"raises {type(raised).__name__}: {raised}"
        raise QuantfxError(message, rule="metric-fails", fix=fix) from raised
    if math.isnan(value):
        raise QuantfxError("is NaN", rule="metric-fails")
    return value


def failure(name: str, told: str, reason: QuantfxError) -> QuantfxError:
    """Return the error of a metric that failed.

    Args:
        name: Of the metric.
        told: What it was asked about.
        reason: What became of it, such as ``number_of`` raises.
    """
    message = f"metric {name} of {told} {reason.message}"
    return QuantfxError(message, rule="metric-fails", site=told, fix=reason.fix)
