"""Check that scales are as good as scales from the range alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.observers.min_max import RangeRecord
from quantfx.passes.observers.weight import WeightObserver
from quantfx.passes.quant.qparams import pair_bounded_scale

HALF_STEP = 0.5 + 1e-3
# Rounding that float32 may add to a squared error, and to an error of exactly representable values.
MORE, ROUNDING = 1.0 + 1e-4, 1e-12


def wrong_ranges(prepared: GraphModule) -> list[str]:
    """Return a line for each observer whose scale wastes integers, or loses to the usual scale.

    1. The integers of an affine tensor cover only the observed values and zero.
    2. The searched scale of a weight is no worse than ``absmax / 127``.

    Args:
        prepared: A calibrated graph.
    """
    lines: list[str] = []
    for _, module in all_graphs(prepared):
        for each in module.modules():
            if isinstance(each, RangeRecord) and each.observed:
                lines += _too_wide(each)
            elif isinstance(each, WeightObserver) and each.weight is not None:
                lines += _worse(each, each.weight)
    return sorted(set(lines))


def _too_wide(observer: RangeRecord) -> Iterator[str]:
    qparams, spec = observer.calculate_qparams(), observer.spec
    scale, zero_point = qparams.scale, qparams.zero_point
    low, high = (each.double() for each in observer.extremes)
    if spec.symmetric or spec.axis is not None or float(scale) <= spec.eps:
        return
    if not bool((low < 0) | (high > 0)):  # the range of zeros alone is guessed
        return
    below = low.clamp(max=0) / scale - (spec.quant_min - zero_point)
    above = (spec.quant_max - zero_point) - high.clamp(min=0) / scale
    if not float(torch.maximum(below, above)) <= HALF_STEP:
        yield f"{observer.label}: {float(below):.2f} and {float(above):.2f} steps are for nothing"


def _worse(observer: WeightObserver, weight: Tensor) -> Iterator[str]:
    spec = observer.spec
    if spec.axis is None:
        return
    rows = weight.detach().double().movedim(spec.axis, 0).flatten(1)
    if spec.group is not None:
        rows = rows.reshape(-1, spec.group)

    def error(scale: Tensor) -> Tensor:
        steps = (rows / scale[:, None]).round().clamp(spec.quant_min, spec.quant_max)
        return (steps * scale[:, None] - rows).square().sum(1)

    usual = (rows.abs().amax(1) / spec.quant_max).clamp(min=spec.eps).float()
    usual = pair_bounded_scale(weight, usual, spec).double()
    found = observer.calculate_qparams().scale.double().flatten()
    worse = error(found) > MORE * error(usual) + ROUNDING * rows.square().sum(1)
    if bool(worse.any()):
        yield f"{observer.label}: the usual scale is better for {int(worse.sum())} channels"
