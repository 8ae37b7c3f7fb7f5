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


class Sizes(ctypes.Structure):
    """The sizes of all layers; ``width`` is that of the state."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("steps", "batch", "hidden", "width", "layers", "directions")
    )


class LayerPointers(ctypes.Structure):
    """The tensors of one layer in one direction, as ``Layer`` of the C++ says."""

    _fields_ = (
        ("weights", ctypes.c_void_p * 3),
        ("scales", ctypes.c_void_p * 3),
        ("biases", ctypes.c_void_p * 2),
        ("x", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("h", ctypes.c_void_p),
        ("c", ctypes.c_void_p),
        ("x_at", Place),
        ("out_at", Place),
        ("inputs", ctypes.c_int64),
        ("reverse", ctypes.c_int64),
    )


@lru_cache(maxsize=1)
def runtime() -> Loaded:
    """Return the library; the first call on a machine compiles it, which takes some seconds."""
    return load("recurrent", [_SOURCE], _declare)


def _declare(library: ctypes.CDLL) -> None:
    library.qfx_recurrent.restype = None
    sizes, layers = ctypes.POINTER(Sizes), ctypes.POINTER(LayerPointers)
    library.qfx_recurrent.argtypes = [ctypes.c_int, sizes, layers, ctypes.c_int]
