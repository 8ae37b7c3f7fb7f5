"""The runtime as a shared library: found, compiled at first use, loaded."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from quantfx.backends.checks.compiled import (
    FLAGS,
    compiled,
    find_compiler,
    last_line,
    openmp_runtimes,
)
from quantfx.backends.direct.runtime import interface

_CORE = Path(__file__).parent / "core"
# Sums and scales rely on this version; PyPI has 3.2.
LEAST = (3, 2)
_INSTALL = "pip install 'quantfx[direct]' brings oneDNN"


@dataclass(frozen=True)
class OneDNN:
    """An installed oneDNN with its headers.

    Attributes:
        version: E.g. ``(3, 2, 0)``.
        headers: Folder that holds ``oneapi/dnnl``.
        library: The shared library.
    """

    version: tuple[int, int, int]
    headers: Path
    library: Path

    def __str__(self) -> str:
        return f"oneDNN {'.'.join(map(str, self.version))} ({self.library})"


@dataclass(frozen=True)
class Runtime:
    """The loaded runtime, or the reason why there is none.

    Attributes:
        onednn: The oneDNN that it is linked with.
        compiler: The C++ compiler, as a command.
        reason: Why it cannot be used; empty if it can.
        library: Its functions.
    """

    onednn: OneDNN | None = None
    compiler: str = ""
    reason: str = ""
    library: ctypes.CDLL | None = None


def missing() -> str:
    """Return what the runtime lacks, without compiling it; empty if it lacks nothing."""
    return _parts().reason


@lru_cache(maxsize=1)
def runtime() -> Runtime:
    """Return the runtime; the first call on a machine compiles it, which takes some seconds."""
    found = _parts()
    if found.reason or found.onednn is None:
        return found
    try:
        path = _compiled(found.onednn, found.compiler)
        before = openmp_runtimes()
        library = ctypes.CDLL(str(path))
        interface.declare(library)
        reason = _mismatch(library, openmp_runtimes() - before) or _fault(library, path)
    except (OSError, subprocess.CalledProcessError, AttributeError) as error:
        reason = f"the runtime does not compile or load here: {last_line(error)}"
        return Runtime(found.onednn, found.compiler, reason)
    return Runtime(found.onednn, found.compiler, reason, None if reason else library)


@lru_cache(maxsize=1)
def _parts() -> Runtime:
    """Find the parts of the runtime."""
    compiler, reason = find_compiler()
    if reason:
        return Runtime(reason=reason)
    found = sorted(_installed(), key=lambda each: each.version, reverse=True)
    if not found:
        return Runtime(compiler=compiler, reason=f"there is no oneDNN with headers: {_INSTALL}")
    if found[0].version[:2] < LEAST:
        reason = f"{found[0]} is older than {'.'.join(map(str, LEAST))}: {_INSTALL}"
        return Runtime(found[0], compiler, reason)
    return Runtime(found[0], compiler)


def _installed() -> Iterator[OneDNN]:
    """Yield each installed oneDNN that uses OpenMP, as torch does."""
    given = os.environ.get("QUANTFX_ONEDNN")
    paths = sysconfig.get_paths()
    roots = [Path(given)] if given else [Path(paths["data"]), Path("/usr/local"), Path("/usr")]
    for root in dict.fromkeys(roots):
        headers = root / "include"
        version = _version(headers / "oneapi" / "dnnl" / "dnnl_version.h")
        config = headers / "oneapi" / "dnnl" / "dnnl_config.h"
        if version is None or not re.search(
            r"DNNL_CPU_THREADING_RUNTIME\s+DNNL_RUNTIME_OMP", config.read_text()
        ):
            continue
        folders = [root / "lib", root / "lib64", root / "lib" / "x86_64-linux-gnu"]
        for path in (folder / f"libdnnl.so.{version[0]}" for folder in folders):
            if path.exists():
                yield OneDNN(version, headers, path)
                break


def _version(header: Path) -> tuple[int, int, int] | None:
    if not header.exists():
        return None
    text = header.read_text()
    numbers = [
        re.search(rf"DNNL_VERSION_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")
    ]
    major, minor, patch = (int(each.group(1)) if each else 0 for each in numbers)
    return major, minor, patch


def _compiled(onednn: OneDNN, compiler: str) -> Path:
    """Return the shared library; from the cache if all its inputs are the same."""
    sources = sorted(_CORE.glob("*.cpp"))
    links = (str(onednn.library), f"-Wl,-rpath,{onednn.library.parent}")
    flags = (*FLAGS, f"-I{onednn.headers}")
    return compiled("direct", compiler, sources, flags, links, f"{core_digest()} {onednn}")


@lru_cache(maxsize=1)
def core_digest() -> str:
    """Return a digest of the runtime's sources."""
    texts = [path.read_bytes() for path in sorted(_CORE.iterdir()) if path.is_file()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _fault(library: ctypes.CDLL, path: Path) -> str:
    """Return what oneDNN computes wrongly on this machine; kept in a file beside the library."""
    from quantfx.backends.direct.runtime.verify import first_fault

    found = path.with_suffix(".verified")
    if not found.exists():
        fault = first_fault(library)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(fault)
        Path(file.name).replace(found)
    fault = found.read_text()
    return f"oneDNN computes wrongly on this CPU: {fault}" if fault else ""


def _mismatch(library: ctypes.CDLL, brought: set[str]) -> str:
    """Return why a loaded library does not fit; empty if it does.

    Args:
        library: The runtime.
        brought: OpenMP runtimes that came with it, beside torch's.
    """
    if library.qfx_interface() != interface.INTERFACE:
        return "the compiled runtime has another interface: empty the cache of quantfx"
    numbers = [ctypes.c_int32() for _ in range(3)]
    threading = ctypes.c_char_p()
    library.qfx_onednn_version(*map(ctypes.byref, numbers), ctypes.byref(threading))
    if threading.value != b"OpenMP":
        return f"the loaded oneDNN runs on {threading.value!r}, not on OpenMP as torch does"
    if brought:
        return f"oneDNN brings an OpenMP runtime that is not torch's: {', '.join(brought)}"
    return ""
