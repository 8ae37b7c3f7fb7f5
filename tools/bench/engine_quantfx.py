"""This library, in each of the ways in which it compiles."""

from __future__ import annotations

from typing import Any

import torch

import quantfx
from quantfx.backends.checks.targets import has_bfloat16
from quantfx.tools.bench.engine import EngineUnavailable, Run
from quantfx.tools.bench.workload import Workload


def build(workload: Workload, threads: int, config: str = "static", **options: Any) -> Run:
    """Quantize for this CPU and compile.

    Args:
        workload: What to quantize.
        threads: Torch's own are set.
        config: The mode.
        options: Of ``Result.compile``.
    """
    del threads
    result = quantfx.quantize(
        workload.model,
        workload.example,
        config=config,
        calibration=workload.calibration if config == "static" else None,
        progress=False,
    )
    return result.compile(**options)


def build_bfloat16(workload: Workload, threads: int) -> Run:
    """Static int8, and bfloat16 between the int8 kernels.

    Raises:
        EngineUnavailable: the CPU would emulate bfloat16, a hundred times slower.
    """
    if not has_bfloat16():
        raise EngineUnavailable("this CPU has no bfloat16 instructions", rule="autocast-dtype")
    return build(workload, threads, autocast=torch.bfloat16)
