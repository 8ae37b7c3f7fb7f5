"""Shared libraries of quantfx's C++, compiled at first use, once per machine, and cached."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from platform import machine

import torch

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-shared",
)


def cache_folder() -> Path:
    """Return the folder of compiled runtimes and measurements."""
    given = os.environ.get("QUANTFX_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quantfx"


def find_compiler() -> tuple[str, str]:
    """Return the command of the C++ compiler, and why nothing can be compiled; one is empty."""
    if sys.platform != "linux" or machine() not in ("x86_64", "AMD64"):
        return "", f"it is for Linux on x86-64, not {sys.platform} on {machine()}"
    compiler = os.environ.get("CXX") or shutil.which("g++") or ""
    if not shutil.which((shlex.split(compiler) or [""])[0]):
        return "", "there is no C++ compiler: install g++"
    return compiler, ""


def compiled(
    name: str,
    compiler: str,
    sources: Sequence[Path],
    flags: Sequence[str] = FLAGS,
    links: Sequence[str] = (),
    said: str = "",
) -> Path:
    """Return the shared library; from the cache if all its inputs are the same.

    Args:
        name: Name of the library.
        compiler: Command of the compiler.
        sources: C++ files.
        flags: Flags of the compiler.
        links: Arguments after the sources: libraries.
        said: Further text that distinguishes libraries in the cache.

    Raises:
        OSError: the compiler or the cache folder is not available.
        subprocess.CalledProcessError: compiling fails; ``stderr`` says why.
    """
    asked = [*shlex.split(compiler), "--version"]
    version = subprocess.run(asked, capture_output=True, check=True, text=True).stdout
    texts = [path.read_text() for path in sources]
    made_of = (texts, version, sorted(torch.cpu.get_capabilities().items()), flags, links, said)
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{digest}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        if path.exists():
            return path  # by the process that was waited for
        print(f"quantfx: compiling the {name} runtime, once on this machine ...", file=sys.stderr)
        made = Path(folder) / path.name
        command = [*shlex.split(compiler), *flags, *map(str, sources), "-o", str(made), *links]
        subprocess.run(command, capture_output=True, check=True, text=True)
        made.replace(path)  # atomically: where there are no locks, several processes compile it
    return path


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Wait for other processes that make the same file: a server starts many at once."""
    import fcntl  # of Linux, as what is compiled

    with ExitStack() as held:
        with suppress(OSError):  # the file is another user's, or its file system has no locks
            file = held.enter_context(path.with_suffix(".lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Loaded:
    """A shared library in this process, or the reason why there is none.

    Attributes:
        reason: Why it cannot be used; empty if it can.
        library: Its functions.
    """

    reason: str = ""
    library: ctypes.CDLL | None = None


def load(name: str, sources: Sequence[Path], declare: Callable[[ctypes.CDLL], None]) -> Loaded:
    """Compile and load a library that needs only the compiler.

    Args:
        name: Name of the library.
        sources: C++ files.
        declare: Declares its functions' types; raises ``AttributeError`` if one is missing.
    """
    compiler, reason = find_compiler()
    if reason:
        return Loaded(reason)
    try:
        before = openmp_runtimes()
        library = ctypes.CDLL(str(compiled(name, compiler, sources)))
        declare(library)
    except (OSError, subprocess.CalledProcessError, AttributeError) as error:
        return Loaded(f"it does not compile or load here: {last_line(error)}")
    if brought := openmp_runtimes() - before:
        return Loaded(f"it brings an OpenMP runtime beside torch's: {', '.join(brought)}")
    return Loaded(library=library)


def last_line(error: Exception) -> str:
    """Return the last line of a compiler's or loader's output."""
    return str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]


def openmp_runtimes() -> set[str]:
    """Return the OpenMP runtimes in this process: torch's and those of other packages."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if re.search(r"lib(g|i)?omp\d?[^/]*\.so", line)}
