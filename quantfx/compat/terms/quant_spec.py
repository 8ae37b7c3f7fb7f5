"""Translate attributes of a PT2E spec, observer or fake-quantize into a ``QuantSpec``."""

from __future__ import annotations

from typing import Any

import torch

from quantfx.passes.quant.scale_floor import SCALE_FLOOR, TORCH_AO_FLOOR
from quantfx.passes.quant.spec import RANGES, MakeObserver, ObserverName, QuantSpec

# Dtypes of quantized tensors, and the dtypes that store them.
_STORED = {torch.quint8: torch.uint8, torch.qint8: torch.int8, torch.qint32: torch.int32}
_PER_CHANNEL = (
    torch.per_channel_affine,
    torch.per_channel_symmetric,
    torch.per_channel_affine_float_qparams,
)
_SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)


def quant_spec(source: Any, observer: ObserverName | MakeObserver = "min_max") -> QuantSpec | None:
    """Return the spec of ``source``; None if it names no dtype to quantize to.

    Args:
        source: Has ``dtype``, ``quant_min``, ``quant_max``, ``qscheme``, ``ch_axis`` and
            ``is_dynamic``, or some of them.
        observer: The observer of the spec.
    """
    given: object = getattr(source, "dtype", None)
    dtype = _STORED.get(given, given) if isinstance(given, torch.dtype) else None
    if not isinstance(dtype, torch.dtype) or dtype not in RANGES:
        return None
    low, high = RANGES[dtype]
    eps: Any = getattr(source, "eps", None)
    qscheme = getattr(source, "qscheme", None)
    per_channel = qscheme in _PER_CHANNEL
    return QuantSpec(
        dtype,
        int(_or(getattr(source, "quant_min", None), low)),
        int(_or(getattr(source, "quant_max", None), high)),
        symmetric=qscheme in _SYMMETRIC,
        axis=int(_or(getattr(source, "ch_axis", None), 0)) if per_channel else None,
        observer=observer,
        eps=TORCH_AO_FLOOR if eps is None else max(float(eps), SCALE_FLOOR),
        dynamic=bool(getattr(source, "is_dynamic", False)) and not per_channel,
    )


def _or(value: Any, default: int) -> Any:
    return default if value is None else value
