"""An observer inside a control-flow branch: it knows whether the branch ever ran."""

from __future__ import annotations

from torch import Tensor

from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams


class BranchObserver(Observer):
    """Records into a shared observer, and notes that this branch ran.

    The tensor that a branch reads is often observed outside the branch as well. Values seen there
    do not tell what the tensor holds when the branch runs.

    Args:
        shared: The observer of the sharing group.
    """

    def __init__(self, shared: Observer) -> None:
        super().__init__(shared.spec, shared.label)
        self.shared = shared
        self.ran = False

    def observe(self, x: Tensor) -> None:
        """Record ``x`` in the shared observer."""
        self.shared.observe(x)
        self.ran = True

    @property
    def observed(self) -> bool:
        """Whether the branch ran."""
        return self.ran

    @property
    def extremes(self) -> tuple[Tensor, Tensor] | None:
        """The extremes that ``shared`` recorded."""
        return self.shared.extremes

    def calculate_qparams(self) -> QParams:
        """Return the qparams of the shared observer."""
        self.require_observed()
        return self.shared.calculate_qparams()
