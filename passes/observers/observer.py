"""What an observer is: a module on an edge that records the range of what flows through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

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
        spec: The spec the qparams are computed for.
        label: Name of the observed tensor, used in errors.
        frozen: Whether the record is final, as it is for a constant weight.
    """

    verb: ClassVar[str] = "observe"  # what a drawing says it does

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
        """Make the record final: what flows through from now on is not recorded."""
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
        """Return scale and zero point for what was recorded.

        Raises:
            CalibrationError: nothing was recorded.
        """

    def qparams_of(self, x: Tensor | None) -> QParams:
        """Return the qparams of the tensor in the graph.

        Args:
            x: The tensor where it is a constant, else None. Observers go by what they recorded; a
                fake-quantize goes by the weight as training left it.

        Raises:
            CalibrationError: nothing was recorded.
        """
        return self.calculate_qparams()

    @property
    def extremes(self) -> tuple[Tensor, Tensor] | None:
        """The smallest and largest value recorded; None if it records something else."""
        return None

    def see_constant(self, x: Tensor) -> None:
        """Record the constant ``x``, once and for all, when inserted behind it."""
        if not self.observed:
            self(x)
            self.freeze()

    def require_finite(self, low: Tensor, high: Tensor) -> None:
        """Raise a ``CalibrationError`` that names this site unless both bounds are finite."""
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
            raise CalibrationError(
                f"non-finite activation at {self.label or 'an observer'}: the batch makes this "
                "tensor NaN or infinite; remove the batch or fix the model"
            )

    def require_observed(self) -> None:
        """Raise a ``CalibrationError`` that names this site if nothing was recorded."""
        if not self.observed:
            raise CalibrationError(
                f"{self.label or 'an observer'} was never run: calibrate with data that reaches it"
            )


def is_observer(node: Node) -> bool:
    """Whether ``node`` calls a module that records (or fakes) the quantization of a tensor."""
    if node.op != "call_module":
        return False
    # Foreign graphs hold torchao's observers, known by the name that prepare gives them.
    if str(node.target).rpartition(".")[2].startswith("activation_post_process"):
        return True
    owner = node.graph.owning_module
    return isinstance(owner, GraphModule) and isinstance(referent(owner, node), Observer)
