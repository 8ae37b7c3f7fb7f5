"""The kernels of ``core/weight_only.cpp``: compiled at first use, loaded, and called by address."""

from __future__ import annotations

import ctypes
import subprocess
from ctypes import c_int, c_int64, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from quantfx.backends.checks.compiled import compiled, find_compiler

_SOURCE = Path(__file__).parent / "core" / "weight_only.cpp"
_WEIGHT: tuple[Any, ...] = (c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int)


@dataclass(frozen=True)
class Kernels:
    """The loaded kernels, or why there are none.

    Attributes:
        reason: Why they cannot be used; empty if they can.
        library: Their functions.
    """

    reason: str = ""
    library: ctypes.CDLL | None = None


def missing() -> str:
    """Return what the kernels lack here, without compiling them; empty if they lack nothing."""
    if not torch.cpu.get_capabilities().get("avx2", False):
        return "they need AVX2, which this CPU has not"
    return find_compiler()[1]


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """Return the kernels; the first call on a machine compiles them, which takes some seconds."""
    reason = missing()
    if reason:
        return Kernels(reason)
    try:
        library = ctypes.CDLL(str(compiled("weight_only", find_compiler()[0], [_SOURCE])))
        library.qfx_weight_linear.argtypes = [*_WEIGHT, c_void_p, c_int64, c_void_p, c_void_p]
        library.qfx_weight_linear.restype = None
        library.qfx_weight_dequantize.argtypes = [*_WEIGHT, c_int64, c_int64, c_void_p]
        library.qfx_weight_dequantize.restype = None
    except (OSError, subprocess.CalledProcessError, AttributeError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        return Kernels(f"they do not compile or load here: {said.splitlines()[-1]}")
    return Kernels(library=library)
