"""Remarks about scales that cannot be what the data asks for, and the warning that names them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.observers.observer import Observer
from quantfx.passes.pipeline.record import records_of
from quantfx.passes.quant.qparams import QParams, range_of
from quantfx.passes.quant.scale_floor import UNKNOWN_RANGE, has_floor
from quantfx.patterns.errors import QuantfxWarning

SCALE = "scale"
"""Stands in the place of the operator in remarks about scales; their node is a site's label."""

# A scale twice as large as the values ask for costs one bit; of less nothing is said.
_WORTH_SAYING = 2.0
# Half precision keeps 11 bits of normal numbers; what loses more than this has left them.
_LOST_IN_HALF = 2**-7
_SHOWN = 5


@dataclass(frozen=True)
class ScaleRemark:
    """A tensor whose scale is not what its values ask for.

    Attributes:
        site: The tensor.
        reason: What is the matter, what becomes of its values, and what to do.
    """

    site: str
    reason: str


def scale_reason(
    observer: Observer, stored: Tensor | None, found: QParams, written: QParams
) -> str | None:
    """Return why scales are not what the values ask for; None if they are.

    Args:
        observer: What saw the values.
        stored: The tensor where it is a constant, else None.
        found: The observer's qparams.
        written: As they go into the graph.
    """
    extremes = observer.extremes if stored is None else range_of(stored.detach(), found.spec)
    raised = written.scale > _WORTH_SAYING * found.scale
    if extremes is None or not bool((extremes[0] <= extremes[1]).all()):
        return None
    low, high = extremes
    if stored is None and bool((low == high).all()):
        return _one_value(float(low.flatten()[0]), found)
    return _describe_held(written, raised, "what its input leaves") or _describe_held(
        found, _at_floor(low, high, found), "the floor under its scale"
    )


def _one_value(value: float, qparams: QParams) -> str:
    if value:
        return (
            f"calibration saw {value:g} alone, so what lies beyond is clipped: calibrate with data "
            "that varies"
        )
    floor = qparams.spec.eps
    guess = f"a guess, [-{UNKNOWN_RANGE:g}, {UNKNOWN_RANGE:g}]"
    return (
        "calibration saw nothing but zeros, so its range is "
        f"{f'that of the least scale, {floor:.3g}' if has_floor(floor) else guess}: calibrate with "
        "data that reaches it, or leave it float"
    )


def _at_floor(low: Tensor, high: Tensor, qparams: QParams) -> Tensor:
    """Return which scales would be less than half as large without the spec's floor."""
    spec = qparams.spec
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    span = 2 * torch.maximum(-low, high) if spec.symmetric else high - low
    wanted = span / (spec.quant_max - spec.quant_min)
    floor = torch.tensor(spec.eps, dtype=torch.float32)
    return (qparams.scale == floor) & (span > 0) & (wanted * _WORTH_SAYING < spec.eps)


def _describe_held(qparams: QParams, held: Tensor, by: str) -> str | None:
    if not bool(held.any()):
        return None
    scale = float(qparams.scale[held].max())
    many = qparams.scale.numel()
    channels = f" in {int(held.sum())} of {many} channels" if many > 1 else ""
    return (
        f"{by} is {scale:.3g}{channels}, so values below {scale / 2:.3g} become zero: scale the "
        "tensor up, or leave it float"
    )


def half_loss_reason(wide: Tensor, narrow: Tensor) -> str | None:
    """Return how much of a weight is lost in a narrower float dtype, if that is much."""
    norm = float(wide.double().norm())
    lost = float((wide.double() - narrow.double()).norm())
    if lost <= _LOST_IN_HALF * norm:
        return None
    smallest = torch.finfo(narrow.dtype).tiny
    return (
        f"{lost / norm:.0%} of it is lost in {narrow.dtype}, whose normal numbers end at "
        f"{smallest:.2g}: quantize it to int8 (mode 'weight-only' or 'dynamic'), or leave it float"
    )


def scale_remarks(module: GraphModule) -> tuple[ScaleRemark, ...]:
    """Return what the passes said about scales, in their order."""
    remarks = (remark for record in records_of(module) for remark in record.remarks)
    return tuple(
        dict.fromkeys(ScaleRemark(each.node, each.message) for each in remarks if each.op == SCALE)
    )


def warn_of_scales(module: GraphModule) -> None:
    """Warn of tensors in the q/dq graph ``module`` whose scale is not what their values ask for."""
    found = scale_remarks(module)
    if not found:
        return
    lines = "; ".join(f"{each.site}: {each.reason}" for each in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more, see report.scales" if len(found) > _SHOWN else ""
    warnings.warn(
        f"the scales of {len(found)} tensor(s) do not fit their values: {lines}{more}",
        QuantfxWarning,
        stacklevel=3,
    )
