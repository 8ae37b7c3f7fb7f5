"""The memory of a tensor as bytes, without numpy, which torch does not require."""

from __future__ import annotations

import ctypes

from torch import Tensor


def raw_bytes(value: Tensor) -> bytes:
    """Return the values of ``value``, in order, as bytes in memory."""
    plain = value.detach().cpu().contiguous()
    return ctypes.string_at(plain.data_ptr(), plain.nbytes) if plain.numel() else b""
