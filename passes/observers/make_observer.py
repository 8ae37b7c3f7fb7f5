"""From a spec to the observer it names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from quantfx.passes.histogram_observer import HistogramObserver
from quantfx.passes.min_max_observer import MinMaxObserver
from quantfx.passes.moving_average_observer import MovingAverageObserver
from quantfx.passes.mse_observer import MinSquaredErrorObserver
from quantfx.passes.observer import Observer
from quantfx.passes.placeholder_observer import PlaceholderObserver
from quantfx.passes.spec import CastSpec, Concrete, ObserverName, QuantSpec
from quantfx.passes.weight_observer import WeightObserver

OBSERVERS: dict[ObserverName, Callable[[QuantSpec, str], Observer]] = {
    "histogram": HistogramObserver,
    "min_max": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "mse": MinSquaredErrorObserver,
    "weight_mse": WeightObserver,
}


def make_observer(spec: Concrete, label: str = "") -> nn.Module:
    """Return a fresh observer for ``spec``.

    Args:
        spec: What the observed tensor must look like; its ``observer`` is a name or makes one.
        label: Name of the tensor, used in errors.
    """
    if isinstance(spec, CastSpec):
        return PlaceholderObserver(spec, label)
    if not isinstance(spec.observer, str):
        return spec.observer(spec, label)
    return (
        PlaceholderObserver(spec, label) if spec.dynamic else OBSERVERS[spec.observer](spec, label)
    )
