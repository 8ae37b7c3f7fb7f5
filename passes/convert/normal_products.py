"""Raise scales of weights where their product with the input's scale is not a normal float."""

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

# A margin, so that rounding does not bring the product of both scales below the limit.
_ROUNDING = 1 + 2**-20
_LAYERS = ("conv", "linear")

QParamsAt = Callable[[Node], QParams | None]


def raise_small_scales(observer: Node, qparams: QParams, qparams_at: QParamsAt) -> QParams:
    """Return ``qparams`` of a layer's weight with no scale too small for the layer's input.

    Kernels multiply both scales in float32 (see ``passes/quant/scale_floor.py``). Values that a
    raised scale rounds away are so small that their products would be below the normal numbers.

    Args:
        observer: Observer of the weight.
        qparams: The qparams that it found.
        qparams_at: Returns the qparams of another observer; None if each call finds them.
    """
    if bool(qparams.zero_point.any()):
        return qparams  # it belongs to the scale
    inputs = [found.scale for each in _inputs(observer) if (found := qparams_at(each)) is not None]
    smallest = min((float(scale.min()) for scale in inputs), default=1.0)
    if smallest >= 1:
        return qparams
    least = _ROUNDING * SCALE_FLOOR / smallest
    return replace(qparams, scale=_at_least(qparams.scale, least))


def _at_least(scale: Tensor, least: float) -> Tensor:
    return scale if bool((scale >= least).all()) else torch.clamp(scale, min=least)


def _inputs(observer: Node) -> Iterator[Node]:
    """Yield the observers of the inputs that layers multiply with the tensor of ``observer``."""
    for layer in observer.users:
        annotation = annotation_of(layer)
        if annotation is None or not annotation.kind.startswith(_LAYERS):
            continue
        for slot, _ in annotation.inputs:
            other = read_slot(layer, slot)
            if other is not observer:
                yield other
