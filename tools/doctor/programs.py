"""The checks of ``quantfx doctor`` of other programs and packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from quantfx.tools.doctor.check import Check
from quantfx.tools.measure.machine import installed_version

# Inductor's compiler unless $CXX names another (torch 2.13: torch/_inductor/config.py, cpp.cxx).
INDUCTORS_COMPILER = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
COMPILERS = ("g++", "clang++")
COMPILER, HEADERS = "C++ compiler", "Python's headers"
PEERS = ("torchao", "onnxruntime", "openvino")

_INSTALL_COMPILER = (
    "install g++: apt install g++, dnf install gcc-c++, or conda install gxx; without one nothing "
    "compiles, and result.module runs all the same"
)
_INSTALL_HEADERS = "install them: apt install python3-dev, or dnf install python3-devel"
_INSTALL_DOT = (
    "install Graphviz: apt install graphviz, brew install graphviz, or conda install graphviz"
)
_SECONDS = 10


def compiler() -> Check:
    """Return the compiler that Inductor calls."""
    asked = os.environ.get("CXX")
    path = shutil.which(asked or INDUCTORS_COMPILER)
    if path is not None:
        return Check(COMPILER, "ok", _version_line(path))
    if asked:
        return Check(
            COMPILER, "problem", f"CXX={asked} is no program", "let CXX name one, or unset it"
        )
    other = next((each for each in COMPILERS if shutil.which(each)), None)
    if other is None:
        return Check(COMPILER, "problem", "none", _INSTALL_COMPILER)
    found = f"{other}, but Inductor looks for {INDUCTORS_COMPILER}"
    return Check(COMPILER, "problem", found, f"export CXX={other}")


def python_headers() -> Check:
    """Return whether Inductor's code can be compiled into an extension."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    if header.exists():
        return Check(HEADERS, "ok", str(header.parent))
    return Check(HEADERS, "problem", f"no {header}", _INSTALL_HEADERS)


def dot() -> Check:
    """Return Graphviz's program, which draws."""
    path = shutil.which("dot")
    if path is None:
        found = "not installed, so drawings are written as text"
        return Check("Graphviz dot", "note", found, _INSTALL_DOT)
    return Check("Graphviz dot", "ok", _version_line(path, "-V"))


def peers() -> Check:
    """Return the engines to compare with; they are not imported."""
    versions = {name: installed_version(name) for name in PEERS}
    there = [f"{name} {number}" for name, number in versions.items() if number]
    absent = [name for name, number in versions.items() if not number]
    if not absent:
        return Check("peers", "ok", ", ".join(there))
    found = ", ".join([*there, *(f"no {name}" for name in absent)])
    return Check("peers", "note", found, "to compare with them: pip install 'quantfx[bench]'")


CHECKS: tuple[Callable[[], Check], ...] = (compiler, python_headers, dot, peers)


def _version_line(path: str, option: str = "--version") -> str:
    """Return the first line of a program's version; dot writes it to standard error."""
    try:
        done = subprocess.run([path, option], capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path}, which does not answer to {option} ({error})"
    lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
    return lines[0] if lines else path
