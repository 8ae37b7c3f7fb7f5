"""Even out the channels of each tensor by what keeps its linears' outputs the nearest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from quantfx.passes.observe.smooth_activations import (
    require_rows,
    rms_of,
    smoothing_scale,
    too_few,
)
from quantfx.passes.observe.smoothing import SmoothableTensor, Smoothed, Smoothing
from quantfx.passes.observers.channel import RANGE_SEARCHES
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs
from quantfx.passes.pipeline.base import Context
from quantfx.passes.quant.qparams import (
    QParams,
    pair_bounded_scale,
    qparams_from_range,
    range_of,
)
from quantfx.passes.quant.spec import QuantSpec

_SHARES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class SearchSmoothing(Smoothing):
    """Choose s of each tensor among those of several shares, of mean squares and of maxima.

    Each candidate is tried on inputs that were held out: both sides of the products rounded, the
    range of the tensor found in both ways. The one under which the outputs of all linears that read
    the tensor err least is taken; it may be to leave the channels as they are. See
    ``SmoothActivations`` for the candidates.

    Attributes:
        rows: Least values of each channel that calibration must have seen.
    """

    rows: int = 1024

    def __post_init__(self) -> None:
        require_rows(self.rows)

    name: ClassVar[str] = "search-smoothing"
    needs_statistics: ClassVar[bool] = True

    def choose(self, tensor: SmoothableTensor, context: Context) -> Smoothed | str:
        """Return the best candidate, unless too little was seen."""
        inputs = context.require_statistics(self.name).layers.get(tensor.sites[0])
        if inputs is None or not inputs.held.shape[1]:
            return "nothing was held out to try it on"
        if reason := too_few(tensor, self.rows):
            return reason
        with torch.no_grad():
            best = min(_candidates(tensor), key=lambda each: _error(tensor, inputs, each))
        if bool((best.divisor == 1).all()):
            return "its outputs err least as it is"
        return best


def _candidates(tensor: SmoothableTensor) -> Iterator[Smoothed]:
    channels = tensor.observer.channels
    weight = torch.cat(tensor.weights).double()
    largest = torch.maximum(-channels.low, channels.high).double()
    sizes = ((channels.rms(), rms_of(tensor.weights)), (largest, weight.abs().amax(0)))
    for search in RANGE_SEARCHES:
        yield Smoothed(torch.ones_like(largest), search)
        for activation, against in sizes:
            for share in _SHARES:
                yield Smoothed(smoothing_scale(activation, against, share), search)


def _error(tensor: SmoothableTensor, inputs: LayerInputs, how: Smoothed) -> float:
    """Return the squared error of all outputs, both sides rounded."""
    divisor = how.divisor.float()
    qparams = tensor.observer.divide_by(divisor, how.search).calculate_qparams()
    x = inputs.held[0]
    rounded = _rounded(x / divisor, qparams)
    total = 0.0
    for weight, spec in zip(tensor.weights, tensor.specs, strict=True):
        scaled = weight.float() * divisor
        error = rounded @ _rounded(scaled, _quick_qparams(scaled, spec)).T - x @ weight.float().T
        total += float(error.double().square().sum())
    return total


def _quick_qparams(weight: Tensor, spec: QuantSpec) -> QParams:
    """Return qparams by the largest value: a search for each candidate would take minutes."""
    qparams = qparams_from_range(*range_of(weight, spec), spec)
    return QParams(pair_bounded_scale(weight, qparams.scale, spec), qparams.zero_point, spec)


def _rounded(x: Tensor, qparams: QParams) -> Tensor:
    spec = qparams.spec
    scale, zero_point = qparams.scale, qparams.zero_point
    if spec.axis is not None:  # a weight, whose channels are its rows
        scale, zero_point = scale.unsqueeze(1), zero_point.unsqueeze(1)
    steps = (x / scale).round_().add_(zero_point).clamp_(spec.quant_min, spec.quant_max)
    return steps.sub_(zero_point).mul_(scale)
