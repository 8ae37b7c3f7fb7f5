"""Call a user's metric, which may raise anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from quantfx.patterns.errors import QuantfxError


def number_of(metric: Callable[[], Any]) -> float:
    """Return the result of a metric as a number.

    Args:
        metric: Function that calls the metric.

    Raises:
        QuantfxError: it raises, or returns NaN or something that is not a number; the message has
            no subject yet.
    """
    try:
        value = float(metric())
    except Exception as raised:  # a user's function may raise anything
        fix = "" if isinstance(raised, QuantfxError) else "call it with the model by itself"
        message = f"raises {type(raised).__name__}: {raised}"
        raise QuantfxError(message, rule="metric-fails", fix=fix) from raised
    if math.isnan(value):
        raise QuantfxError("is NaN", rule="metric-fails")
    return value


def failure(name: str, told: str, reason: QuantfxError) -> QuantfxError:
    """Return the error of a metric that failed.

    Args:
        name: Name of the metric.
        told: What the metric was evaluated on.
        reason: The failure, as ``number_of`` raises it.
    """
    message = f"metric {name} of {told} {reason.message}"
    return QuantfxError(message, rule="metric-fails", site=told, fix=reason.fix)
