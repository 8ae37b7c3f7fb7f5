"""Every kernel call against the dequantized float arithmetic it stands for, on random operators."""

from __future__ import annotations

import pytest
import torch

import quantfx
from quantfx import backends
from quantfx.passes.report.outcome import missed_sites
from tests import unchecked
from tests.backends.op_cases import OpCase, op_case

STEPS = 1  # a tie may round to the other side
ERROR = 1e-5  # of the largest magnitude, where the result is float
SUBSET = range(60)
SWEEP = range(1000)


def result_of(case: OpCase, mode: str = "static") -> quantfx.Result:
    backend = backends.get("x86", reduce_range=case.reduce_range)
    batch = {0: torch.export.Dim.DYNAMIC}
    others = (tuple(batch for _ in case.inputs[1:]),) if len(case.inputs) > 1 else ()
    free = (batch, *others) if case.free_batch else None
    return unchecked.quantize(
        case.model, case.inputs, backend=backend, config=mode, dynamic_shapes=free
    )


def check(seed: int) -> None:
    case = op_case(seed)
    result = result_of(case)
    assert not missed_sites(result.report.sites), case.label
    compared = result.compare_sites()
    kernels = [site for site in result.report.sites if site.reach == "kernel"]
    assert len(compared) >= len(kernels) > 0, case.label
    wrong = [each for each in compared if not each.within(STEPS, ERROR)]
    assert not wrong, f"{case.label}: {wrong}"
    whole = result.module(*case.inputs)
    assert whole.shape == result.quantized(*case.inputs).shape, case.label


@pytest.mark.parametrize("seed", SUBSET)
def test_kernels_compute_what_the_qdq_graph_does(seed: int) -> None:
    check(seed)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", SWEEP[len(SUBSET) :])
def test_kernels_compute_what_the_qdq_graph_does_everywhere(seed: int) -> None:
    check(seed)
