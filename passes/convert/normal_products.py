"""Scales of weights, raised where their product with the input's scale is no normal float."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.slots import read_slot
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.scale_floor import SCALE_FLOOR

# So that rounding does not make the product of a scale and its reciprocal's multiple smaller.
_ROUNDING = 1 + 2**-20
_LAYERS = ("conv", "linear")

QParamsAt = Callable[[Node], QParams | None]


def raise_small_scales(observer: Node, qparams: QParams, qparams_at: QParamsAt) -> QParams:
    """Return ``qparams`` of a layer's weight with no scale too small for the layer's input.

    Kernels multiply both scales in float32 (see ``passes/quant/scale_floor.py``). What a raised
    scale rounds away is so small that its products would be below the normal numbers.

    Args:
        observer: Reads the weight.
        qparams: What it found.
        qparams_at: Returns the qparams of another observer; None if they are found in each call.
    """
    if bool(qparams.zero_point.any()):
        return qparams  # which belongs to its scale
    inputs = [found.scale for each in _inputs(observer) if (found := qparams_at(each)) is not None]
    smallest = min((float(scale.min()) for scale in inputs), default=1.0)
    if smallest >= 1:
        return qparams
    least = _ROUNDING * SCALE_FLOOR / smallest
    return replace(qparams, scale=_at_least(qparams.scale, least))


def _at_least(scale: Tensor, least: float) -> Tensor:
    return scale if bool((scale >= least).all()) else torch.clamp(scale, min=least)


def _inputs(observer: Node) -> Iterator[Node]:
    """Yield the observers of what the layers that read ``observer`` multiply it with."""
    for layer in observer.users:
        annotation = annotation_of(layer)
        if annotation is None or not annotation.kind.startswith(_LAYERS):
            continue
        for slot, _ in annotation.inputs:
            other = read_slot(layer, slot)
            if other is not observer:
                yield other
