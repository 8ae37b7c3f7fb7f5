"""Tensors of dtype quint8 and qint8, which torch will remove; they are made only here.

torch 2.13 warns at the first one of a process (pytorch/pytorch#184982 says that they go, not when).
The warning is kept from users here; a test counts it, so that its removal is noticed.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

import torch
from torch import Tensor

from quantfx.patterns.schema import resolve_op

QUANTIZE = resolve_op("aten.quantize_per_tensor.default")
DEQUANTIZE = resolve_op("aten.dequantize.self")
FROM_INTEGERS = resolve_op("aten._make_per_tensor_quantized_tensor.default")
_PER_CHANNEL = resolve_op("aten._make_per_channel_quantized_tensor.default")
_QUANTIZE_ROWS = resolve_op("aten.quantize_per_channel.default")

# Maps a plain dtype of graphs to the dtype of tensors that carry their qparams.
CARRYING = {torch.uint8: torch.quint8, torch.int8: torch.qint8}
_ENGINE = threading.Lock()  # the engine is global to the process, and packing reads it
WARNING = r"torch\.quantize_per_tensor.*deprecated"


def announce() -> None:
    """Make a first quantized tensor, so that torch's only warning does not appear in a user's run.

    This uses torch's Python function: operators write warnings to stderr, past all filters.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=WARNING)
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)


def per_tensor(integers: Tensor, scale: float, zero_point: int) -> Tensor:
    """Return uint8 or int8 ``integers`` as a tensor that carries ``scale`` and ``zero_point``."""
    made: Tensor = FROM_INTEGERS(integers, scale, zero_point)
    return made


def per_channel(integers: Tensor, scales: Tensor, axis: int) -> Tensor:
    """Return int8 ``integers`` as a tensor that carries one scale for each channel of ``axis``."""
    none = torch.zeros(len(scales), dtype=torch.long)
    made: Tensor = _PER_CHANNEL(integers, scales.double(), none, axis)
    return made


def quantize_signed(weight: Tensor, scale: Tensor) -> Tensor:
    """Return float ``weight`` quantized to int8 without zero points.

    Args:
        weight: ``(out, in)``.
        scale: Shape ``()`` for the whole weight, or ``(out,)``.
    """
    if not scale.dim():
        made: Tensor = QUANTIZE(weight, float(scale), 0, torch.qint8)
    else:
        none = torch.zeros(len(scale), dtype=torch.long)
        made = _QUANTIZE_ROWS(weight, scale, none, 0, torch.qint8)
    return made


def rows(weight: Tensor, scales: Tensor, offsets: Tensor, bits: int) -> Tensor:
    """Return float ``weight`` quantized by row, with a float offset each, to 8 or 4 bits."""
    dtype = torch.quint8 if bits == 8 else torch.quint4x2
    made: Tensor = _QUANTIZE_ROWS(weight, scales, offsets, 0, dtype)
    return made


def pack_with(engine: str, prepack: Any, *args: Any) -> Any:
    """Return ``prepack(*args)`` for the kernels of ``engine``, which packed weights remember."""
    with _ENGINE:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = engine
        try:
            with torch.no_grad():
                return prepack(*args)
        finally:
            torch.backends.quantized.engine = before
