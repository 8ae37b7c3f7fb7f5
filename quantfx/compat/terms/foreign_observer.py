"""An observer or fake-quantize of another library, wrapped as an observer of quantfx."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quantfx.compat.terms.errors import foreign_code
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec


class ForeignObserver(Observer):
    """Takes its qparams from another module.

    Args:
        observer: Has ``calculate_qparams() -> (scale, zero_point)``.
        spec: The spec that the observer's attributes describe.
        label: Name of the tensor, used in errors.
    """

    def __init__(self, observer: nn.Module, spec: QuantSpec, label: str) -> None:
        super().__init__(spec, label)
        self.observer: Any = observer

    def observe(self, x: Tensor) -> None:
        """Show ``x`` to the other module."""
        self.observer(x)

    @property
    def observed(self) -> bool:
        """True: the other module decides what it does without calibration."""
        return True

    def calculate_qparams(self) -> QParams:
        """Return the qparams of the other module, in the shape that passes expect."""
        with foreign_code():
            scale, zero_point = self.observer.calculate_qparams()
        shape = () if self.spec.axis is None else (-1,)
        return QParams(scale.detach().reshape(shape), zero_point.detach().reshape(shape), self.spec)
