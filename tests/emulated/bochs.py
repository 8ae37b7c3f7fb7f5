"""Bochs, built from Debian's source with a few lines changed: the package lacks AMX, and is slower."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import NamedTuple

_URL = "http://deb.debian.org/debian/pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz"
_SHA256 = "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b"


class _Change(NamedTuple):
    """A mended line of Bochs.

    Attributes:
        file: Where it is.
        before: A regular expression of what is there.
        after: What takes its place.
        times: How often it is there.
    """

    file: str
    before: str
    after: str
    times: int = 1


_CHANGES = (
    # A guest of more than 2 GB would be swapped to a file.
    _Change("config.cc", r"      1, 2048,\n", r"      1, 3584,\n"),
    # Displacements of vpinsrb count bytes, not words, in its form for xmm16 and above, which
    # oneDNN's convolutions of 3 channels use.
    _Change(
        "cpu/decoder/ia_opcodes_evex.def",
        r"(EVEX_VPINSRB_VdqEbIb.*OP_Hdq, )OP_Ew",
        r"\1OP_Eb",
    ),
    # Gathers by registers from 16 on, as in MKL's products, were no instructions.
    _Change(
        "cpu/decoder/fetchdecode32.cc",
        r"(\n +i->setSibIndex\(i->sibIndex\(\) \| \(vvv & 0x10\)\);)",
        r"\1 vvv &= 0xf;",
    ),
    # AMX's signed bytes were taken for unsigned ones.
    _Change("cpu/avx/amx.cc", r"Bit32s\(([xy]byte\[\d\])\)", r"Bit32s(Bit8s(\1))", times=16),
    # Linux enables AMX only where it can be switched off by XFD. That is not emulated: the MSR is
    # written and nothing comes of it, so tiles are lost when another process gets the CPU.
    _Change(
        "cpu/cpuid.cc",
        r"(\n +leaf->eax \|= \(1<<3\);\n)(\n +// EBX\[31:00\] - The size)",
        r"\1    if (is_cpu_extension_supported(BX_ISA_AMX))\n      leaf->eax |= (1<<4);\n\2",
    ),
)
# fmt: off
_OPTIONS = [
    "--enable-x86-64", "--enable-cpu-level=6", "--enable-avx", "--enable-evex", "--enable-amx",
    "--enable-all-optimizations", "--enable-long-phy-address", "--enable-pci",
    "--enable-protection-keys", "--enable-vmx=2", "--enable-cet", "--enable-uintr",
    "--enable-monitor-mwait", "--enable-perfmon", "--enable-memtype", "--disable-docbook",
    "--disable-debugger", "--with-nogui", "--without-x", "--without-x11",
]
# fmt: on


def build_bochs(folder: Path) -> Path:
    """Return the emulator; the first call downloads 4 MB and compiles for some five minutes."""
    source = folder / "bochs"
    program = source / "bochs"
    if program.exists():
        return program
    archive = folder / "bochs.tar.xz"
    urllib.request.urlretrieve(_URL, archive)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != _SHA256:
        raise OSError(f"{_URL} is not the source that this was written for")
    source.mkdir()
    _run(["tar", "-xf", str(archive), "--strip-components=1"], source)
    for change in _CHANGES:
        path = source / change.file
        text, times = re.subn(change.before, change.after, path.read_text())
        if times != change.times:
            raise ValueError(f"{change.file} of Bochs has {change.before!r} {times} times")
        path.write_text(text)
    flags = ["CC=gcc", "CXX=g++", "CFLAGS=-O2", "CXXFLAGS=-O2 -march=native"]
    _run(["./configure", *_OPTIONS, *flags], source)
    _run(["make", f"-j{os.cpu_count()}"], source)
    return program


def _run(command: list[str], folder: Path) -> None:
    with (folder / "build.log").open("a") as log:
        subprocess.run(command, check=True, cwd=folder, stdout=log, stderr=log)
