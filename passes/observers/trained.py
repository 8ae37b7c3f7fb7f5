"""Scales of a weight that training has found."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.errors import SpecError
from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.quant.qparams import QParams, scale_above_pair_sums
from quantfx.passes.quant.spec import QuantSpec

_KEY = "quantfx_trained"


class TrainedObserver(MinMaxObserver):
    """Has the qparams of training, fitted to a spec's narrower range; a pair bound still holds.

    Args:
        spec: Symmetric; per-channel if the weight was per-channel in training.
        label: Name of the tensor, used in errors.
        trained: The qparams of training.
    """

    def __init__(self, spec: QuantSpec, label: str, trained: QParams) -> None:
        super().__init__(spec, label)
        there = trained.spec
        if (there.axis, there.symmetric, there.dtype) != (spec.axis, spec.symmetric, spec.dtype):
            message = f"{label} was trained as '{there}', and the backend quantizes it as '{spec}'"
            fix = "keep it float in the config, or train it again with prepare(..., qat=True)"
            raise SpecError(message, rule="trained-otherwise", site=label, fix=fix)
        self.trained = trained

    def calculate_qparams(self) -> QParams:
        """Return the qparams of training, adapted to the further demands of the spec."""
        self.require_observed()
        there = self.trained.spec
        steps = self.spec.quant_max - self.spec.quant_min
        factor = max(1.0, (there.quant_max - there.quant_min) / steps)
        scale = scale_above_pair_sums(self.trained.scale * factor, self.pair_sum)
        return QParams(scale, self.trained.zero_point, self.spec)


def trained_qparams(producer: Node) -> QParams | None:
    """Return the qparams that training has found for the constant ``producer``, if any."""
    value = producer.meta.get(_KEY)
    return value if isinstance(value, QParams) else None


def set_trained_qparams(producer: Node, qparams: QParams) -> None:
    """Note on the constant ``producer`` the qparams that training has found."""
    producer.meta[_KEY] = qparams
