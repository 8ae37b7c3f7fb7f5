"""A weight whose scale is final, though its values may still move to other integers."""

from __future__ import annotations

from torch import Tensor

from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams


class SettledObserver(Observer):
    """Identity; its qparams are known.

    Args:
        qparams: Scale and zero point of the weight.
        original: The weight before it was rounded.
        label: Name of the weight, used in errors.
    """

    def __init__(self, qparams: QParams, original: Tensor, label: str) -> None:
        super().__init__(qparams.spec, label)
        self.qparams = qparams
        self.original = original

    def observe(self, x: Tensor) -> None:
        """Record nothing."""

    @property
    def observed(self) -> bool:
        """True: no data is needed."""
        return True

    def calculate_qparams(self) -> QParams:
        """Return the known qparams."""
        return self.qparams
