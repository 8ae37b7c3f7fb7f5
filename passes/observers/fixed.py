"""Qparams that are known in advance, e.g. of a tensor that an operator bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from quantfx.passes.errors import SpecError
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec


@dataclass(frozen=True)
class FixedQParams:
    """Makes the observer of known qparams: ``QuantSpec(..., observer=FixedQParams(s, z))``.

    Attributes:
        scale: Positive and finite.
        zero_point: Inside the spec's integer range.
    """

    scale: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, Real) or not math.isfinite(self.scale) or self.scale <= 0:
            message = f"a fixed scale must be positive and finite, not {self.scale!r}"
            raise SpecError(message, rule="number-range", site="scale")

    def __call__(self, spec: QuantSpec, label: str) -> FixedObserver:
        """Return the observer.

        Raises:
            SpecError: the spec is per-channel, or the zero point is outside its range.
        """
        return FixedObserver(spec, label, self)


class KnownObserver(Observer):
    """Identity; its qparams do not depend on data, so it needs no calibration.

    Args:
        qparams: Scale and zero point of the tensor.
        label: Name of the tensor, used in errors.
    """

    def __init__(self, qparams: QParams, label: str) -> None:
        super().__init__(qparams.spec, label)
        self.qparams = qparams

    def observe(self, x: Tensor) -> None:
        """Record nothing."""

    @property
    def observed(self) -> bool:
        """True: no data is needed."""
        return True

    def calculate_qparams(self) -> QParams:
        """Return the known qparams."""
        return self.qparams


class FixedObserver(KnownObserver):
    """Has the qparams of its spec.

    Args:
        spec: Per-tensor.
        label: Name of the tensor, used in errors.
        qparams: The scale and zero point.
    """

    def __init__(self, spec: QuantSpec, label: str, qparams: FixedQParams) -> None:
        if spec.axis is not None:
            message = f"{label}: fixed qparams are per-tensor, the spec is '{spec}'"
            raise SpecError(message, rule="per-tensor", site=label)
        if not spec.quant_min <= qparams.zero_point <= spec.quant_max:
            message = f"{label}: zero point {qparams.zero_point} is outside of '{spec}'"
            raise SpecError(message, rule="number-range", site=label)
        scale = torch.tensor(qparams.scale, dtype=torch.float32)
        super().__init__(QParams(scale, torch.tensor(qparams.zero_point), spec), label)


class SettledObserver(KnownObserver):
    """Of a weight whose scale is final, though its values may still move to other integers.

    Args:
        qparams: Scale and zero point of the weight.
        original: The weight before it was rounded.
        label: Name of the weight, used in errors.
    """

    def __init__(self, qparams: QParams, original: Tensor, label: str) -> None:
        super().__init__(qparams, label)
        self.original = original
