"""Qparams derived from other tensors' qparams: a bias has the scale of activation x weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantfx.passes.errors import SpecError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec

Rule = Callable[[Sequence[nn.Module]], tuple[Tensor, Tensor]]


def product(observers: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """Return the product of all scales, and zero point 0.

    It is the scale of an integer product: ``(s_x q_x) (s_w q_w) = (s_x s_w) (q_x q_w)``.
    """
    scale = torch.ones(())
    for observer in observers:
        if not isinstance(observer, Observer):
            message = f"a product of qparams needs calibrated observers, not {observer}"
            raise SpecError(message, rule="not-derivable", site=str(observer))
        scale = scale * observer.calculate_qparams().scale
    return scale, torch.zeros_like(scale, dtype=torch.int64)


@dataclass(frozen=True)
class DerivedFrom:
    """Makes the observer of a derived spec: ``QuantSpec(int32, ..., observer=DerivedFrom(sites))``.

    Attributes:
        sources: Sites whose observers decide; they may come later in the graph.
        rule: Maps their observers, in that order, to scale and zero point; called at conversion.
    """

    sources: tuple[Site, ...] = ()
    rule: Rule = product

    def __call__(self, spec: QuantSpec, label: str) -> DerivedObserver:
        """Return an observer without sources; insert-observers sets them."""
        return DerivedObserver(spec, label, self)


class DerivedObserver(Observer):
    """Identity; its qparams follow from other observers' qparams.

    Args:
        spec: Dtype and range of the tensor; per-channel if the derived scale is.
        label: Name of the tensor, used in errors.
        derived: The sites it depends on, and the rule.

    Attributes:
        sources: Their observers, set once all exist.
    """

    def __init__(self, spec: QuantSpec, label: str, derived: DerivedFrom) -> None:
        super().__init__(spec, label)
        self.derived = derived
        self.sources: tuple[nn.Module, ...] = ()  # a tuple, so not part of the state

    def observe(self, x: Tensor) -> None:
        """Record nothing."""

    @property
    def observed(self) -> bool:
        """Whether every source was calibrated."""
        return all(each.observed for each in self.sources if isinstance(each, Observer))

    def calculate_qparams(self) -> QParams:
        """Return the qparams that the rule derives from the sources.

        Raises:
            SpecError: the rule gives per-channel scales to a per-tensor spec, or the reverse.
        """
        scale, zero_point = self.derived.rule(self.sources)
        if (scale.numel() > 1) != (self.spec.axis is not None):
            raise SpecError(
                f"{self.label}: its rule derives {scale.numel()} scale(s) for the spec "
                f"'{self.spec}'",
                rule="derived-axis",
                site=self.label,
                fix="set axis=0 for a scale per channel, axis=None for a single scale",
            )
        shape = () if self.spec.axis is None else (-1,)
        return QParams(
            scale.detach().to(torch.float32).reshape(shape),
            zero_point.detach().to(torch.int64).reshape(shape),
            self.spec,
        )
