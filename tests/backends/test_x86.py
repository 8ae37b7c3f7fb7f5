from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantfx import backends
from quantfx.backends.x86 import CONVERT, FINISH_TRAINING, PREPARE, pattern_set, x86
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.spec import QuantSpec
from tests.refusals import refused

ROOT = Path(__file__).parents[2]


def test_the_pipelines_as_text() -> None:
    assert str(PREPARE) == (
        "check-config, lift-dropout, remove-dead-code, adopt-fake-quantize{scales=False}, "
        "compute-in-float32, fold-constants, fold-batch-norm, fold-scales, "
        "annotate-conv-bn, "
        "fuse-qat-conv-bn, annotate-conv, annotate-linear, annotate-rnn, annotate-embedding, "
        "annotate-attention, expand-attention, annotate-matmul, annotate-mul, annotate-max-pool, "
        "propagate, share, insert-observers, place-dropout"
    )
    assert str(FINISH_TRAINING) == (
        "settle-modes, inline-no-grad, remove-dropout, fold-qat-conv-bn, fold-batch-norm"
    )
    assert str(CONVERT) == (
        "round-weights{from_samples=32}, correct-bias{from_samples=32}, insert-qdq, "
        "share-tied-tables, fold-weights, pack-halves, tidy, store-in-half"
    )
    assert Pipeline.parse(str(PREPARE)).elements == PREPARE.elements


def spec(recipe: Recipe, name: str) -> QuantSpec:
    found = recipe.spec(name)
    assert isinstance(found, QuantSpec)
    return found


def test_specs_follow_the_target() -> None:
    plain = x86().recipe
    assert str(plain.spec("act")) == "u8[0,255] affine"
    assert str(plain.spec("conv_weight")) == "s8[-128,127] symmetric per-channel(0)"
    floors = {each.eps for _, each in plain.specs if isinstance(each, QuantSpec)}
    assert floors == {2**-126}
    torchao = x86(observer="histogram", weight_observer="min_max").recipe
    asked = ("act", "dynamic_act", "conv_weight", "linear_weight")
    assert {spec(torchao, name).eps for name in asked} == {2**-12}
    old = backends.get("x86", target="avx2").recipe
    assert spec(old, "conv_weight").pair_bound == "blocks"
    assert spec(old, "linear_weight").pair_bound == "adjacent"
    assert spec(old, "weight_only").pair_bound == "none", "its sums are float"
    assert backends.get("x86", target="amx").recipe.specs == plain.specs
    reduced = backends.get("x86", target="avx2", reduce_range=True).recipe
    assert str(reduced.spec("act")) == "u8[0,127] affine"
    assert str(reduced.spec("dynamic_act")) == "u8[0,127] affine dynamic"
    assert spec(reduced, "conv_weight").pair_bound == "none"


def test_every_spec_name_a_template_uses_is_bound_and_no_other() -> None:
    assert {name for name, _ in x86().recipe.specs} == set(pattern_set().spec_names)
    plans = x86(patterns=pattern_set(plans=True)).recipe
    assert {name for name, _ in plans.specs} == set(pattern_set(plans=True).spec_names)
    static = x86(patterns=pattern_set().of_mode("static")).recipe
    assert [name for name, _ in static.specs] == ["act", "conv_weight", "linear_weight"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x68", {}, "unknown-name: x68"),
        ("x86", {"reduce_rang": True}, "unknown-name: reduce_rang"),
        ("x86", {"target": "amxx"}, "unknown-name: amxx"),
    ],
)
def test_unknown_names(name: str, options: dict[str, str], message: str) -> None:
    with refused(message):
        backends.get(name, **options)


SATURATION = """
import json, torch, quantfx
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(2)
model = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Flatten(),
                      nn.Linear(8 * 36, 10)).eval()
with torch.no_grad():
    for weights in model.parameters():
        weights.copy_(weights.abs() + 0.5 * weights.abs().max())  # one sign, near full range
x = torch.rand(4, 16, 8, 8) + 3.0  # activations at the top of their range
found = {}
for target in ("host", "any"):
    backend = quantfx.backends.get("x86", target=target)
    result = quantfx.quantize(model, (x,), calibration=[x], backend=backend, progress=False,
                              check_inputs=False, compare=False)
    try:
        said, compiled = "compiled", result.compile()
    except quantfx.QuantfxError as error:
        said, compiled = str(error), result.compile(strict=False)
    exact, kernel = result.quantized(x), compiled(x)
    found[target] = said, float((exact - kernel).abs().max() / exact.abs().max())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found_on_avx2() -> dict[str, tuple[str, float]]:
    """By target, what compiling said and the error, in a process as on a CPU with AVX2 only."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SATURATION],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, tuple[str, float]] = json.loads(run.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.parametrize("target", ["host", "any"])
def test_a_host_that_saturates_gets_weights_that_do_not(
    target: str, found_on_avx2: dict[str, tuple[str, float]]
) -> None:
    """The same program as on a CPU with AVX2 only: right with target="host", wrong without."""
    said, error = found_on_avx2[target]
    if target == "host":
        assert said == "compiled"
        assert error < 0.01
    else:
        assert "3 site(s) would saturate on this CPU (avx2, no VNNI)" in said
        assert error > 0.05, "the trap this guards against is gone: see facts on saturation"
