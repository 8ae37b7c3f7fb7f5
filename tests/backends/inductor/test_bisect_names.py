"""Our passes inside Inductor have names: for torch's compiler bisector, its settings, and ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import quantfx
from quantfx.passes.pipeline.permits import Permits, permitting
from tests.models.small import residual_block

ROOT = Path(__file__).parent.parent.parent.parent

# Prints the kernels that are called, and the names that the bisector counts.
COMPILE = """
import torch
import quantfx
from torch._inductor.compiler_bisector import CompilerBisector
from tests.models.small import residual_block

told = []
asked = CompilerBisector.disable_subsystem

def disable(backend, subsystem, debug_info=None):
    answer = asked(backend, subsystem, debug_info)
    if subsystem == "post_grad_passes":
        told.append(f"{debug_info()}={answer}")
    return answer

CompilerBisector.disable_subsystem = disable
model, x = residual_block(), torch.randn(2, 4, 8, 8)
result = quantfx.quantize(model, x, calibration=[x], backend="x86")
compiled = result.compile()
y = compiled(x)
print(*told)
print(*(each.kernel for each in compiled.kernels))
print(float((y - result.module(x)).abs().max()) < 0.2)
"""


def compile_with(**bisector: str) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | bisector,
        capture_output=True,
        text=True,
    )
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.sweep
def test_torchs_bisector_reaches_our_passes_by_name() -> None:
    chosen = {"TORCH_BISECT_BACKEND": "inductor", "TORCH_BISECT_SUBSYSTEM": "post_grad_passes"}
    told, kernels, close = compile_with(**chosen, TORCH_BISECT_MAX="1000")
    assert "binary" in "".join(kernels)
    assert {"drop-pool-copies=False", "fuse-sums=False"} <= set(told)
    before = told.index("fuse-sums=False")
    # The number of passes that may run leaves out fuse-sums, and what comes later.
    fewer, kernels, also_close = compile_with(**chosen, TORCH_BISECT_MAX=str(before - 1))
    assert "fuse-sums=True" in fewer
    assert "drop-pool-copies=False" in fewer
    assert "binary" not in "".join(kernels)
    assert close == also_close == ["True"]


def test_a_bisection_of_ours_leaves_out_a_sum() -> None:
    model, x = residual_block(), torch.randn(2, 4, 8, 8)
    result = quantfx.quantize(model, x, calibration=[x])
    with permitting(Permits()) as everything:
        fused = result.compile()
    (sum_of,) = [each for each in everything.asked if each.by == "fuse-sums" and each.site]
    with permitting(Permits(set(everything.asked) - {sum_of})):
        apart = result.compile()
    assert len({each.kernel for each in fused.kernels} - {e.kernel for e in apart.kernels}) == 1
    torch.testing.assert_close(fused(x), apart(x), rtol=0.05, atol=0.1)
