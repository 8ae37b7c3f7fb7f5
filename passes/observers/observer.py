"""The base of observers: a module on an edge that records the range of the tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.graphs import referent
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec


class Observer(nn.Module, ABC):
    """Identity on a float tensor that records its range; turns the record into qparams.

    Attributes:
        spec: The spec that qparams are computed for.
        label: Name of the observed tensor, used in errors.
        frozen: Whether the record is final, as it is for a constant weight.
    """

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__()
        self.spec = spec
        self.label = label
        self.frozen = False

    def forward(self, x: Tensor) -> Tensor:
        """Record ``x`` and return it unchanged.

        Raises:
            CalibrationError: ``x`` holds NaN or infinity.
        """
        if not self.frozen and x.numel():
            self.observe(x.detach())
        return x

    def freeze(self) -> None:
        """Make the record final: later tensors are not recorded."""
        self.frozen = True

    @abstractmethod
    def observe(self, x: Tensor) -> None:
        """Add the non-empty, detached tensor ``x`` to the record."""

    @property
    @abstractmethod
    def observed(self) -> bool:
        """Whether any value was recorded."""

    @abstractmethod
    def calculate_qparams(self) -> QParams:
        """Return scale and zero point for the recorded values.

        Raises:
            CalibrationError: nothing was recorded.
        """

    def qparams_of(self, x: Tensor | None) -> QParams:
        """Return the qparams of the tensor in the graph.

        Args:
            x: The tensor if it is a constant, else None. Observers use their record; a
                fake-quantize uses the trained weight.

        Raises:
            CalibrationError: nothing was recorded.
        """
        return self.calculate_qparams()

    @property
    def extremes(self) -> tuple[Tensor, Tensor] | None:
        """The smallest and largest recorded value; None if the observer records something else."""
        return None

    def see_constant(self, x: Tensor) -> None:
        """Record the constant ``x`` once and for all; called on insertion."""
        if not self.observed:
            self(x)
            self.freeze()

    def require_finite(self, low: Tensor, high: Tensor) -> None:
        """Raise a ``CalibrationError`` that names this site unless both bounds are finite."""
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
            raise CalibrationError(
                f"non-finite activation at {self.label or 'an observer'}: the batch makes this "
                "tensor NaN or infinite",
                rule="not-finite",
                site=self.label or None,
                fix="remove the batch or fix the model",
            )

    def require_observed(self) -> None:
        """Raise a ``CalibrationError`` that names this site if nothing was recorded."""
        if not self.observed:
            message = f"{self.label or 'an observer'} was never run"
            fix = "calibrate with data that reaches it"
            raise CalibrationError(message, rule="never-run", site=self.label or None, fix=fix)


def is_observer(node: Node) -> bool:
    """Whether ``node`` calls a module that records (or fakes) the quantization of a tensor."""
    if node.op != "call_module":
        return False
    # Foreign graphs hold torchao's observers, recognized by the name that prepare gives them.
    if str(node.target).rpartition(".")[2].startswith("activation_post_process"):
        return True
    owner = node.graph.owning_module
    return isinstance(owner, GraphModule) and isinstance(referent(owner, node), Observer)
