"""This library, in each of the ways in which it compiles."""

from __future__ import annotations

from typing import Any

import torch

import quantfx
from quantfx import backends
from quantfx.backends.checks.targets import has_bfloat16
from quantfx.backends.x86 import Kernels
from quantfx.tools.bench.engine import EngineUnavailable, Run
from quantfx.tools.bench.workload import Workload


def build(
    workload: Workload,
    threads: int,
    config: str = "static",
    kernels: Kernels = "auto",
    **options: Any,
) -> Run:
    """Quantize for this CPU and compile.

    Args:
        workload: The workload to quantize.
        threads: Unused; torch's number of threads is already set.
        config: The mode.
        kernels: The backend's option ``kernels``.
        options: Options of ``Result.compile``.
    """
    return _quantize(workload, config, kernels).compile(**options)


def build_module(workload: Workload, threads: int) -> Run:
    """Static int8 without a compiler."""
    module = _quantize(workload, "static", "auto").module

    def run(*args: Any) -> Any:
        with torch.no_grad():
            return module(*args)

    return run


def _quantize(workload: Workload, config: str, kernels: Kernels) -> quantfx.Result:
    return quantfx.quantize(
        workload.model,
        workload.example,
        backend=backends.get("x86", kernels=kernels),
        config=config,
        calibration=workload.calibration if config == "static" else None,
        progress=False,
    )


def build_bfloat16(workload: Workload, threads: int) -> Run:
    """Static int8, and bfloat16 between the int8 kernels.

    Raises:
        EngineUnavailable: the CPU would emulate bfloat16, a hundred times slower.
    """
    if not has_bfloat16():
        raise EngineUnavailable("this CPU has no bfloat16 instructions", rule="autocast-dtype")
    return build(workload, threads, autocast=torch.bfloat16)
