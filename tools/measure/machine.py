"""The machine and the versions that a measurement belongs to."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from quantfx.backends.checks import targets

_PACKAGES = ("quantfx", "torch", "torchao", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf")
_ISA = ("avx", "amx", "fma")


@dataclass(frozen=True)
class Machine:
    """Facts about a machine, without which figures mean little.

    Attributes:
        cpu: The name of the CPU.
        cores: Number of logical cores.
        isa: Its vector and matrix extensions.
        target: The name of quantfx's target for it.
        isa_cap: ``ONEDNN_MAX_CPU_ISA``, or its older name ``DNNL_MAX_CPU_ISA``, if set.
        system: Operating system and Python.
        versions: Version of each package; None if it is not installed.
        date: Date in UTC, ISO 8601.
    """

    cpu: str
    cores: int
    isa: tuple[str, ...]
    target: str
    isa_cap: str | None
    system: str
    versions: dict[str, str | None]
    date: str


def this_machine() -> Machine:
    """Return the current facts about this machine."""
    capabilities = torch.cpu.get_capabilities()
    able = [name for name, has in capabilities.items() if has is True and name.startswith(_ISA)]
    return Machine(
        cpu=str(capabilities.get("cpu_name", platform.processor())),
        cores=os.cpu_count() or 1,
        isa=tuple(sorted(able)),
        target=targets.host().name,
        isa_cap=os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA"),
        system=f"{platform.platform()}, Python {platform.python_version()}",
        versions={package: installed_version(package) for package in _PACKAGES},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def installed_version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
