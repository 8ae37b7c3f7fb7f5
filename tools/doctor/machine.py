"""The checks of ``quantfx doctor`` of torch, the CPU, and int8 on both."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

import torch

from quantfx import backends
from quantfx.backends.checks import targets
from quantfx.patterns.torch_version import TESTED, is_tested
from quantfx.tools.doctor.check import Check

# Instructions that decide whether int8 and bfloat16 are right and fast.
ISA = ("avx2", "avx512_f", "avx_vnni", "avx512_vnni", "amx_int8", "avx512_bf16", "amx_bf16")
# oneDNN reads the first variable that is set.
ISA_CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def python() -> Check:
    """Return the interpreter."""
    return Check("Python", "ok", f"{platform.python_version()}, {platform.platform()}")


def torch_version() -> Check:
    """Return whether quantfx was tested with this torch."""
    version = torch.__version__
    if is_tested():
        return Check("torch", "ok", version)
    found = f"{version}; quantfx was tested with {', '.join(TESTED)}"
    newest = TESTED[-1]
    return Check("torch", "note", found, f"if a template misses its kernel: torch {newest}")


def cpu() -> Check:
    """Return the name of the CPU."""
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    return Check("CPU", "ok", f"{name}, {os.cpu_count()} cores")


def isa() -> Check:
    """Return the instructions of the CPU that matter."""
    capabilities = torch.cpu.get_capabilities()
    present = [name for name in ISA if capabilities.get(name)]
    absent = [name for name in ISA if name not in present]
    parts = [" ".join(present) or "none that matter"]
    parts += [f"without {' '.join(absent)}"] if absent else []
    return Check("instructions", "ok" if "avx2" in present else "note", "; ".join(parts))


def isa_cap() -> Check:
    """Return whether a variable keeps oneDNN from using some of them."""
    name = next((name for name in ISA_CAPS if os.environ.get(name)), None)
    if name is None:
        return Check("oneDNN's ISA cap", "ok", "none")
    found = f"{name}={os.environ[name]}"
    return Check("oneDNN's ISA cap", "note", found, f"to use all that the CPU has: unset {name}")


def target() -> Check:
    """Return the meaning of ``target="host"`` here, and how its sums are kept right."""
    host = targets.host()
    policy = backends.get("x86").policy
    if host.saturates:
        return Check("target", "note", f"{host.name}; {policy}")
    return Check("target", "ok", f"{host.name}, its sums do not saturate; {policy}")


def bfloat16() -> Check:
    """Return whether ``compile(autocast=torch.bfloat16)`` is possible."""
    if targets.has_bfloat16():
        return Check("bfloat16", "ok", "in hardware")
    return Check("bfloat16", "note", "not in hardware, so autocast to it is refused")


def threads() -> Check:
    """Return the number of threads of a kernel."""
    return Check("threads", "ok", f"{torch.get_num_threads()}")


CHECKS: tuple[Callable[[], Check], ...] = (
    python,
    torch_version,
    cpu,
    isa,
    isa_cap,
    target,
    bfloat16,
    threads,
)
