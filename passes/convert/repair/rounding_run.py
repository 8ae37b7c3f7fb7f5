"""Run a graph with observers as it was before rounding, and as it will be after."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.observe.stepper import Stepper
from quantfx.passes.observers.fake_quantize import fake_quantized
from quantfx.passes.observers.make_fake_quantize import make_fake_quantize
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.placeholder import PlaceholderObserver
from quantfx.passes.observers.settled import SettledObserver
from quantfx.passes.quant.qparams import QParams


class FloatRun(Stepper):
    """Computes in float, with the weights from before repairs rounded them."""

    def observed(self, observer: object, value: Any) -> Any:
        """Return the value; for a rounded weight, the original."""
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
        qparams = self._known[observer]
        if qparams.spec.axis is None:
            return _rounded(value.float(), qparams).to(value.dtype)
        return fake_quantized(value.float(), qparams).to(value.dtype)


def _rounded(x: Tensor, qparams: QParams) -> Tensor:
    """Return the same as ``fake_quantized``, per tensor, in a quarter of the time."""
    spec, zero = qparams.spec, int(qparams.zero_point)
    scale = qparams.scale.to(x)
    steps = (x * (1 / scale)).round_().clamp_(spec.quant_min - zero, spec.quant_max - zero)
    return steps.mul_(scale)
