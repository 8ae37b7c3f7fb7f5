"""The C++ of recurrent layers as a shared library."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from quantfx.backends.checks.compiled import compiled, find_compiler, openmp_runtimes

_CORE = Path(__file__).parent / "core"
_INTERFACE = 1


class Place(ctypes.Structure):
    """How many elements lie between two steps, and between two rows of a batch."""

    _fields_ = (("step", ctypes.c_int64), ("batch", ctypes.c_int64))


@dataclass(frozen=True)
class Runtime:
    """The loaded library, or why there is none.

    Attributes:
        library: Its functions.
        reason: Why it cannot be used; empty if it can.
    """

    library: ctypes.CDLL | None = None
    reason: str = ""


@lru_cache(maxsize=1)
def runtime() -> Runtime:
    """Return the library; the first call on a machine compiles it, which takes some seconds."""
    compiler, reason = find_compiler()
    if reason:
        return Runtime(reason=reason)
    try:
        path = compiled("recurrent", compiler, sorted(_CORE.glob("*.cpp")))
        before = openmp_runtimes()
        library = ctypes.CDLL(str(path))
        _declare(library)
    except (OSError, subprocess.CalledProcessError, AttributeError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        return Runtime(reason=f"it does not compile or load here: {said.splitlines()[-1]}")
    if library.qfx_recurrent_interface() != _INTERFACE:
        return Runtime(reason="it has another interface: empty the cache of quantfx")
    if brought := openmp_runtimes() - before:
        return Runtime(reason=f"it brings an OpenMP runtime beside torch's: {', '.join(brought)}")
    return Runtime(library)


def _declare(library: ctypes.CDLL) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.qfx_recurrent_interface.argtypes = ()
    library.qfx_recurrent_interface.restype = number
    library.qfx_recurrent.restype = None
    tensors, state = [pointer] * 3, [pointer] * 2
    library.qfx_recurrent.argtypes = [
        number, pointer, pointer, Place, *tensors, number, pointer, Place, *state, number,
    ]  # fmt: skip
