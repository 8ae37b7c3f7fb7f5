"""Every native kernel against the dequantized float arithmetic it stands for, on each engine."""

from __future__ import annotations

import pytest
import torch

from quantfx import backends
from quantfx.backends.quantized.engines import ENGINES
from tests import unchecked
from tests.backends.native_cases import KINDS, native_case

STEPS = 1  # a tie may round to the other side
LAYERS = tuple(kind for kind in KINDS if kind.startswith(("conv", "linear")))
# What no engine computes right is refused by name; see engines.py.
WRONG = ("computes convolutions with one channel a group wrongly", "of this shape wrongly")
QNNPACK = (
    "engine qnnpack has no max_pool3d",
    "engine qnnpack adds tensors only whose scales are near to that of the sum",
)
CASES = [
    (kind, engine) for kind in KINDS for engine in ENGINES if kind in LAYERS or engine == "x86"
]
SUBSET = (0, 1, 4)  # the last with a reduced range
OTHERS = (0, 4)  # of other engines than the default
SWEEP = range(100)


def check(kind: str, engine: str, seed: int) -> None:
    case = native_case(kind, seed)
    backend = backends.get("native", engine=engine, reduce_range=seed % 5 == 4)
    result = unchecked.quantize(case.model, case.inputs, backend=backend, strict=False)
    sites = result.report.sites
    assert sites, case.label
    missed = [site for site in sites if not site.kernel]
    compared = result.backend.compare_sites(result.quantized, case.inputs, {})
    if missed:
        assert engine in ("onednn", "fbgemm", "qnnpack"), f"{case.label}: {missed}"
        assert all(site.reason.endswith((*WRONG, *QNNPACK)) for site in missed), case.label
    assert len(compared) == len(sites) - len(missed), case.label
    assert all(each.steps is not None for each in compared), case.label
    wrong = [each for each in compared if not each.within(STEPS, 0)]
    assert not wrong, f"{case.label} on {engine}: {wrong}"


@pytest.mark.filterwarnings("ignore:.*planned site.*:quantfx.patterns.errors.QuantfxWarning")
@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_kernels_compute_what_the_qdq_graph_does(kind: str, engine: str) -> None:
    for seed in SUBSET if engine == "x86" else OTHERS:
        check(kind, engine, seed)


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore:.*planned site.*:quantfx.patterns.errors.QuantfxWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_kernels_compute_what_the_qdq_graph_does_everywhere(kind: str, engine: str) -> None:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine  # operators without weights read the global one
    try:
        for seed in SWEEP:
            check(kind, engine, seed)
    finally:
        torch.backends.quantized.engine = before
