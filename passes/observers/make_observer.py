"""Make the observer that a spec names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from quantfx.passes.observers.histogram import HistogramObserver
from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.observers.moving_average import MovingAverageObserver
from quantfx.passes.observers.mse import MinSquaredErrorObserver
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.placeholder import PlaceholderObserver
from quantfx.passes.observers.weight import WeightObserver
from quantfx.passes.quant.spec import CastSpec, Concrete, ObserverName, QuantSpec

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
        spec: What the tensor is quantized to; its ``observer`` is a name, or makes an observer.
        label: Name of the tensor, used in errors.
    """
    if isinstance(spec, CastSpec):
        return PlaceholderObserver(spec, label)
    if not isinstance(spec.observer, str):
        return spec.observer(spec, label)
    return (
        PlaceholderObserver(spec, label) if spec.dynamic else OBSERVERS[spec.observer](spec, label)
    )
