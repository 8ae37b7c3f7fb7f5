"""A graph with observers, run as it was before rounding and as it will be after."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule

from quantfx.passes.observe.stepper import Stepper
from quantfx.passes.observers.fake_quantize import fake_quantized
from quantfx.passes.observers.make_fake_quantize import make_fake_quantize
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.placeholder import PlaceholderObserver
from quantfx.passes.observers.settled import SettledObserver
from quantfx.passes.quant.qparams import QParams


class FloatRun(Stepper):
    """Computes in float, with weights as they were before repairs rounded them."""

    def observed(self, observer: object, value: Any) -> Any:
        """Return the value; of a weight that was rounded, what it was before."""
        return observer.original if isinstance(observer, SettledObserver) else value


class RoundingRun(Stepper):
    """Rounds wherever the q/dq graph will.

    Args:
        module: A graph with observers that have seen data.
        known: Qparams by observer, shared by runs of one graph.
    """

    def __init__(self, module: GraphModule, known: dict[nn.Module, QParams]) -> None:
        super().__init__(module)
        self._known = known

    def observed(self, observer: object, value: Any) -> Any:
        """Return the value, rounded."""
        if isinstance(observer, PlaceholderObserver):  # a dynamic range, or a narrower float
            label = observer.label
            return make_fake_quantize(observer.spec, label, weight=None, learn_scale=False)(value)
        if not isinstance(observer, Observer):
            return value
        if observer not in self._known:
            self._known[observer] = observer.qparams_of(value)
        return fake_quantized(value.float(), self._known[observer]).to(value.dtype)
