"""Weight-only linears from model to kernel: int8 and int4, eager, compiled, saved and tied."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

import quantfx
from quantfx import Config
from quantfx.backends.checks.compiled import Loaded
from quantfx.backends.weight_only import operator
from quantfx.passes.errors import ConfigError, ContractError
from quantfx.passes.quant.qdq import DEQUANTIZE_GROUPS
from quantfx.passes.quant.spec import QuantSpec
from quantfx.saving.file import read
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.refusals import refused

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(3, 2, 96, generator=GENERATOR)
INT4 = Config("weight-only-4bit")
INT8_GROUPS = Config("weight-only").weights(group=32)
AFFINE = INT4.weights(symmetric=False, observer="min_max")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 40, bias=False)).eval()


def noise(found: Tensor, exact: Tensor) -> float:
    return float(10 * torch.log10(exact.square().mean() / (found - exact).square().mean()))


@pytest.mark.parametrize(
    ("config", "decibels"),
    [(Config("weight-only"), 40), (INT8_GROUPS, 41), (INT4, 17), (INT4.weights(group=64).module("0", None), 17), (AFFINE, 17)],
    ids=["int8", "int8 groups", "int4", "groups of 64", "affine"],
)  # fmt: skip
def test_kernels_compute_what_the_qdq_graph_does(config: Config, decibels: float) -> None:
    float_model = model()
    result = unchecked.quantize(float_model, (X,), config=config)
    with torch.no_grad():
        assert noise(result.quantized(X), float_model(X)) > decibels
        torch.testing.assert_close(result.module(X), result.quantized(X), rtol=1e-5, atol=1e-5)
    assert all((each.error or 0) < 1e-5 for each in result.compare_sites())
    assert {site.kernel for site in result.report.sites} == {operator.kernel_name()}


def test_an_affine_weight_has_zero_points_and_a_symmetric_one_none() -> None:
    for config, expected in ((AFFINE, True), (INT4, False)):
        result = unchecked.quantize(model(), (X,), config=config)
        calls = result.module.graph.find_nodes(op="call_function", target=operator.weight_linear())
        assert [each.args[3] is not None for each in calls] == [expected] * 2


@pytest.mark.parametrize(
    "config", [INT4, pytest.param(INT8_GROUPS, marks=pytest.mark.sweep)], ids=["int4", "int8"]
)
def test_compiled_for_free_sizes(config: Config) -> None:
    dim = torch.export.Dim.DYNAMIC
    result = unchecked.quantize(model(), (X,), config=config, dynamic_shapes=({0: dim, 1: dim},))
    compiled = result.compile()
    for rows in (3, 5):
        x = torch.randn(rows, rows + 1, 96, generator=GENERATOR)
        torch.testing.assert_close(compiled(x), result.quantized(x), rtol=1e-5, atol=1e-5)
    assert {each.compiled for each in result.report.sites} == {operator.kernel_name()}


def test_files_hold_two_values_a_byte(tmp_path: Path) -> None:
    result = unchecked.quantize(model(), (X,), config=INT4)
    result.save(tmp_path / "int4.quantfx")
    again = quantfx.load(tmp_path / "int4.quantfx")
    assert torch.equal(again.module(X), result.module(X))
    values = 96 * 64 + 64 * 40
    # Half a byte a value; of 32 a scale of four bytes and a zero point of one; the bias of 64.
    stored = values // 2 + values // 32 * 5 + 64 * 4
    assert result.report.quantized_bytes == stored
    held = read(tmp_path / "int4.quantfx").tensors.values()
    inputs = X.numel() * 4
    assert sum(each.numel() * each.element_size() for each in held) == stored + inputs


def test_int8_groups_keep_more_and_are_drawn_and_explained(
    tmp_path: Path, graph_snapshot: SnapshotAssertion
) -> None:
    """Of weights few of which are large and decide the scale of a row."""
    x, layer = X.flatten(0, 1)[:4], seeded(lambda: nn.Linear(96, 64))
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(0)).pow_(3)
    result, rows = (
        unchecked.quantize(layer, (x,), config=config)
        for config in (INT8_GROUPS, Config("weight-only"))
    )
    assert noise(result.module(x), layer(x)) > noise(rows.module(x), layer(x)) + 1
    assert result.quantized == graph_snapshot(name="qdq")
    assert result.module == graph_snapshot(name="lowered")
    told = " ".join(str(result.explain("linear")).split())
    assert (
        "weight_s8: s8[-128,127] symmetric per-channel(0) groups(32), asked for by rule all" in told
    )
    result.save(tmp_path / "int8.quantfx")
    again = quantfx.load(tmp_path / "int8.quantfx")
    assert torch.equal(again.module(x), result.module(x))
    # A byte a value; of 32 a scale of four bytes and a zero point of one; the bias of 64.
    assert result.report.quantized_bytes == 96 * 64 + 96 * 64 // 32 * 5 + 64 * 4


def test_groups_whose_range_fits_4_bits_are_stored_so() -> None:
    narrow = INT8_GROUPS.weights(quant_min=-8, quant_max=7)
    result = unchecked.quantize(model(), (X,), config=narrow)
    stored = [each.dtype for each in result.module.buffers() if each.numel() == 96 * 64 // 2]
    assert stored == [torch.uint8]
    torch.testing.assert_close(result.module(X), result.quantized(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [INT4, INT8_GROUPS], ids=["int4", "int8"])
def test_rows_that_do_not_part_into_groups_stay_float(config: Config) -> None:
    layers = nn.Sequential(nn.Linear(48, 32), nn.Linear(32, 8)).eval()
    result = unchecked.quantize(layers, (torch.randn(2, 48),), config=config)
    assert [site.site.node for site in result.report.sites] == ["linear_1"]
    (skipped,) = result.report.skipped
    assert skipped.reason == "rows of 48 values do not divide into groups of 32"


def test_what_kernels_do_not_take_is_refused_by_name() -> None:
    affine = INT8_GROUPS.weights(symmetric=False, observer="min_max")
    for config, told in (
        (INT4.weights(group=24), "groups of a multiple of 32 values, not 24"),
        (INT8_GROUPS.weights(group=24), "groups of a multiple of 32 values, not 24"),
        (affine, "symmetric weights, without a zero point, not affine ones"),
        (Config("static").weights(group=32), "one scale for each channel, not groups"),
        (Config("dynamic").weights(group=32), "one scale for each channel, not groups"),
    ):
        with refused("kernel-spec", ConfigError, site="linear.weight") as caught:
            unchecked.quantize(model(), (X,), config=config, calibration=[(X,)])
        assert told in str(caught.value)


def test_int8_groups_with_zero_points_miss_the_kernel() -> None:
    spec = QuantSpec(torch.int8, -128, 127, axis=0, observer="min_max", group=32)
    backend = quantfx.backends.get("x86").with_specs(weight_only=spec).with_config("weight-only")
    result = unchecked.quantize(model(), (X,), backend=backend, strict=False)
    (reason,) = {site.reason.partition(" ")[2] for site in result.report.sites}
    assert reason == "has zero points, which the kernel takes in [-8, 7] only"
    assert torch.equal(result.module(X), result.quantized(X))


def test_code_without_quantfx_has_no_kernel_for_groups() -> None:
    result = unchecked.quantize(model(), (X,), config=INT8_GROUPS)
    with refused("no-kernel", ContractError, site="linear") as caught:
        result.compile(wrapper="cpp")
    assert "has a scale for each group, the kernel takes one per row" in str(caught.value)


def test_a_tied_embedding_reads_the_weight_that_the_kernel_reads() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 32)
            self.head = nn.Linear(32, 50, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.table(tokens))

    tokens = torch.arange(6).reshape(2, 3)
    result = unchecked.quantize(Tied().eval(), (tokens,), config="weight-only")
    large = [t for t in result.module.buffers() if t.numel() == 50 * 32]
    assert [t.dtype for t in large] == [torch.int8]
    torch.testing.assert_close(result.module(tokens), result.quantized(tokens))


def test_without_a_compiler_torch_stands_in_and_reports_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operator, "missing", lambda: "there is no C++ compiler")
    monkeypatch.setattr(operator, "kernels", lambda: Loaded("there is no C++ compiler"))
    result = unchecked.quantize(model(), (X,), config=INT4)
    assert {each.kernel for each in result.report.sites} == {
        "weight_linear (no kernel here: torch)"
    }
    torch.testing.assert_close(result.module(X), result.quantized(X), rtol=1e-5, atol=1e-5)


def test_a_graph_of_another_quantizer_is_lowered() -> None:
    """PT2E writes the same operators."""
    quantized = unchecked.quantize(model(), (X,), config=INT4).quantized
    for node in quantized.graph.nodes:
        node.meta.pop("quantfx_annotation", None)
    lowered = quantfx.backends.get("x86").with_config(INT4).lower(quantized)
    assert not lowered.graph.find_nodes(op="call_function", target=DEQUANTIZE_GROUPS)
