"""The kernels of ``core/``: compiled at first use, loaded, and called by address."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_int, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path

import torch

from quantfx.backends.checks.compiled import Loaded, find_compiler, load

_CORE = Path(__file__).parent / "core"
_SOURCES = (_CORE / "weight_only.cpp", _CORE / "one_row.cpp")
_WEIGHT = (c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int)


def missing() -> str:
    """Return what the kernels lack here, without compiling them; empty if they lack nothing."""
    if not torch.cpu.get_capabilities().get("avx2", False):
        return "they need AVX2, which this CPU lacks"
    return find_compiler()[1]


@lru_cache(maxsize=1)
def kernels() -> Loaded:
    """Return the kernels; the first call on a machine compiles them, which takes some seconds."""
    reason = missing()
    return Loaded(reason) if reason else load("weight_only", _SOURCES, _declare)


def _declare(library: ctypes.CDLL) -> None:
    library.qfx_weight_linear.argtypes = (*_WEIGHT, c_void_p, c_int64, c_void_p, c_void_p)
    library.qfx_weight_linear.restype = None
    library.qfx_weight_one_row.argtypes = (*_WEIGHT, c_void_p, c_void_p, c_void_p)
    library.qfx_weight_one_row.restype = c_bool
    library.qfx_weight_dequantize.argtypes = (*_WEIGHT, c_int64, c_int64, c_void_p)
    library.qfx_weight_dequantize.restype = None
