from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quantfx import backends
from quantfx.tools.doctor import kernels as doctor_kernels
from quantfx.tools.doctor.kernels import kernel_checks

ROOT = Path(__file__).parents[3]
HOST = backends.get("x86")
# oneDNN reads its cap once per process.
CAPPED = """
from quantfx import backends
from quantfx.tools.doctor.kernels import kernel_checks
for target in ("host", "avx512_vnni"):
    for check in kernel_checks(backends.get("x86", target=target)):
        print(target, check.name, check.status, check.found, sep="|")
"""


def test_both_kernels_are_exact_and_the_random_state_stays() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    found = [(check.name, check.status) for check in kernel_checks(HOST)]
    assert found == [("int8 linear", "ok"), ("int8 convolution", "ok")]
    assert torch.rand(1).equal(expected)


def test_a_target_that_promises_more_than_the_cpu_does_is_seen() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CAPPED],
        check=True,
        cwd=ROOT,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows] == [
        ["host", "int8 linear", "ok"],
        ["host", "int8 convolution", "ok"],
        ["avx512_vnni", "int8 linear", "problem"],
        ["avx512_vnni", "int8 convolution", "problem"],
    ]
    assert all("% of the largest sum" in row[3] for row in rows[2:])


def test_kernels_that_are_not_there_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr(doctor_kernels, "_linear", absent)
    linear, convolution = kernel_checks(HOST)
    assert (linear.status, linear.found) == ("problem", "failed: no such kernel")
    assert linear.fix
    assert convolution.status == "ok"
