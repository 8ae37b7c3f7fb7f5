"""Short names of dtypes: ``f32``, ``u8``."""

from __future__ import annotations

import torch

_DTYPES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int8: "s8",
    torch.int16: "s16",
    torch.int32: "s32",
    torch.int64: "s64",
    torch.quint8: "qu8",
    torch.qint8: "qs8",
    torch.qint32: "qs32",
}


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``f32``, ``u8``, ``s64``; other dtypes under torch's name."""
    return _DTYPES.get(dtype) or str(dtype).removeprefix("torch.")
