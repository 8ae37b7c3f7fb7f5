"""Remarks about scales that do not fit the data, and the warning that names them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.graph.remark import ScaleRemark
from quantfx.passes.observers.observer import Observer
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.quant.qparams import QParams, range_of
from quantfx.passes.quant.scale_floor import UNKNOWN_RANGE, has_floor
from quantfx.patterns.errors import warn

# A scale twice as large as the values require costs one bit; less gives no remark.
_WORTH_SAYING = 2.0
# Half precision keeps 11 bits of normal numbers; a larger loss means subnormal numbers.
_LOST_IN_HALF = 2**-7
_SHOWN = 5


def scale_reason(
    observer: Observer, stored: Tensor | None, found: QParams, written: QParams
) -> str | None:
    """Return why scales do not fit the values; None if they do.

    Args:
        observer: The observer of the values.
        stored: The tensor if it is a constant, else None.
        found: The observer's qparams.
        written: The qparams that go into the graph.
    """
    extremes = observer.extremes if stored is None else range_of(stored.detach(), found.spec)
    raised = written.scale > _WORTH_SAYING * found.scale
    if extremes is None or not bool((extremes[0] <= extremes[1]).all()):
        return None
    low, high = extremes
    if stored is None and bool((low == high).all()):
        return _one_value(float(low.flatten()[0]), found)
    return _describe_held(written, raised, "the least scale its input allows") or _describe_held(
        found, _at_floor(low, high, found), "the floor under its scale"
    )


def _one_value(value: float, qparams: QParams) -> str:
    if value:
        return (
            f"calibration saw only {value:g}, so values beyond it are clipped: calibrate with data "
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
    """Return how much of a weight is lost in a narrower float dtype; None if that is little."""
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
    """Return the remarks of passes about scales, in order."""
    return tuple(dict.fromkeys(remarks_of(module, ScaleRemark)))


def warn_of_scales(module: GraphModule) -> None:
    """Warn of tensors in the q/dq graph ``module`` whose scales do not fit their values."""
    found = scale_remarks(module)
    if not found:
        return
    lines = "; ".join(f"{each.site}: {each.reason}" for each in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more, see report.scales" if len(found) > _SHOWN else ""
    message = f"the scales of {len(found)} tensor(s) do not fit their values: {lines}{more}"
    warn(message, rule="scale", site=found[0].site, stacklevel=3)
