"""The C++ of recurrent layers as a shared library."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

from quantfx.backends.checks.compiled import Loaded, load

_SOURCE = Path(__file__).parent / "core" / "recurrent.cpp"


class Place(ctypes.Structure):
    """The number of elements between two steps, and between two rows of a batch."""

    _fields_ = (("step", ctypes.c_int64), ("batch", ctypes.c_int64))


@lru_cache(maxsize=1)
def runtime() -> Loaded:
    """Return the library; the first call on a machine compiles it, which takes some seconds."""
    return load("recurrent", [_SOURCE], _declare)


def _declare(library: ctypes.CDLL) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.qfx_recurrent.restype = None
    tensors, state = [pointer] * 3, [pointer] * 2
    library.qfx_recurrent.argtypes = [
        number, pointer, pointer, Place, *tensors, number, pointer, Place, *state, number,
    ]  # fmt: skip
