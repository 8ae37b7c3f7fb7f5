"""The float network compiled by Inductor, in float32 or under bfloat16 autocast."""

from __future__ import annotations

import torch

from quantfx.backends.checks.targets import has_bfloat16
from quantfx.backends.inductor.compile import CompiledModule
from quantfx.passes.capture.capture import capture
from quantfx.tools.bench.engine import EngineUnavailable, Run
from quantfx.tools.bench.workload import Workload


def build_float32(workload: Workload, threads: int) -> Run:
    """Compile with freezing like the int8 graphs, which would be flattered otherwise."""
    del threads  # torch's own are set
    return CompiledModule(capture(workload.model, workload.example))


def build_bfloat16(workload: Workload, threads: int) -> Run:
    """Compile with freezing, under autocast.

    Raises:
        EngineUnavailable: the CPU would emulate bfloat16, a hundred times slower.
    """
    del threads  # torch's own are set
    if not has_bfloat16():
        raise EngineUnavailable("this CPU has no bfloat16 instructions", rule="autocast-dtype")
    return CompiledModule(capture(workload.model, workload.example), autocast=torch.bfloat16)
