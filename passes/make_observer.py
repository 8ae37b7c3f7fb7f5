"""From a spec to the observer it names."""

from __future__ import annotations

from collections.abc import Callable

from quantfx.passes.histogram_observer import HistogramObserver
from quantfx.passes.min_max_observer import MinMaxObserver
from quantfx.passes.moving_average_observer import MovingAverageObserver
from quantfx.passes.mse_observer import MinSquaredErrorObserver
from quantfx.passes.observer import Observer
from quantfx.passes.spec import ObserverName, QuantSpec
from quantfx.passes.weight_observer import WeightObserver

OBSERVERS: dict[ObserverName, Callable[[QuantSpec, str], Observer]] = {
    "histogram": HistogramObserver,
    "min_max": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "mse": MinSquaredErrorObserver,
    "weight_mse": WeightObserver,
}


def make_observer(spec: QuantSpec, label: str = "") -> Observer:
    """Return a fresh observer of the kind ``spec.observer`` names.

    Args:
        spec: What the observed tensor must look like.
        label: Name of the tensor, used in errors.
    """
    return OBSERVERS[spec.observer](spec, label)
