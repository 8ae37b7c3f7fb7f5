"""The route through Inductor's own patterns, which torch 2.13 is the last to have.

Behind it, they are refused by name, and what needs them is skipped.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._inductor.fx_passes import quantization

import quantfx
from quantfx.backends.inductor.inductor_patterns import compiled_rows
from quantfx.backends.inductor.torch_internals import has_qdq_patterns
from quantfx.passes.errors import ContractError
from quantfx.passes.report.report import OpRow
from quantfx.patterns.errors import QuantfxError
from tests import unchecked
from tests.export_cases import ROWS, Net
from tests.models.small import cat_pool_net, residual_block

needs_patterns = pytest.mark.skipif(
    not has_qdq_patterns(), reason="torch 2.13 is the last to have q/dq patterns in Inductor"
)
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def quantize(model: nn.Module, x: torch.Tensor, mode: str = "static") -> quantfx.Result:
    return unchecked.quantize(model.eval(), (x,), calibration=[x], config=mode, progress=False)


def linears() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(8, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 4))
    return Net(lambda f, g, h, x: h(g(y := f(x).relu()) + y), *layers)


@needs_patterns
@pytest.mark.parametrize(("model", "x", "mode"), [
    (cat_pool_net(), IMAGE, "static"),
    pytest.param(residual_block(), torch.randn(2, 4, 8, 8), "static", marks=pytest.mark.sweep),
    pytest.param(linears(), ROWS, "static", marks=pytest.mark.sweep),
    (linears(), ROWS, "dynamic"),
    (linears(), ROWS, "fp16"),
    (linears(), ROWS, "weight-only"),
])  # fmt: skip
def test_it_computes_bit_for_bit_what_our_lowering_does(
    model: nn.Module, x: torch.Tensor, mode: str
) -> None:
    result = quantize(model, x, mode)
    theirs = result.compile(lower="inductor")
    assert result.report.planned == result.report.compiled
    assert torch.equal(theirs(x), result.compile()(x))
    assert result.report.planned == result.report.compiled


@needs_patterns
def test_what_its_patterns_do_not_know_is_an_error_that_names_it() -> None:
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 8, 3))
    x = torch.randn(2, 2, 4, 4, 4)
    result = quantize(model, x)
    with pytest.raises(ContractError, match="did not reach their int8 kernel: conv3d 0/1"):
        result.compile(lower="inductor")
    compiled = result.compile(lower="inductor", strict=False)
    torch.testing.assert_close(compiled(x), result.quantized(x), atol=1e-2, rtol=1e-2)
    result.compile()
    assert result.report.compiled == result.report.planned == 3


@needs_patterns
@pytest.mark.parametrize("activation", [nn.Hardtanh(), nn.Hardswish(), nn.SiLU()])
def test_activations_a_conv1d_kernel_refuses_are_an_error_here_only(activation: nn.Module) -> None:
    """Inductor would fuse them, and the kernel would raise at run time."""
    x = torch.randn(2, 4, 8)
    result = quantize(nn.Sequential(nn.Conv1d(4, 4, 3), activation, nn.Conv1d(4, 4, 1)), x)
    with pytest.raises(ContractError, match="conv1d feeds .*: torch 2.13's own patterns fuse"):
        result.compile(lower="inductor")
    compiled = result.compile()
    assert result.report.planned == result.report.compiled == 2
    torch.testing.assert_close(compiled(x), result.quantized(x), atol=1e-2, rtol=1e-2)


def test_a_torch_without_them_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(quantization, "_register_quantization_weight_pack_pass", raising=False)
    result = quantize(linears(), ROWS)
    with pytest.raises(QuantfxError, match="torch 2.13 was the last.*use lower='onednn'"):
        result.compile(lower="inductor")
    result.compile()
    assert result.report.planned == result.report.compiled


def test_other_names_and_wrappers_are_refused() -> None:
    result = quantize(linears(), ROWS)
    with pytest.raises(QuantfxError, match="no way to lower 'inducto'.*did you mean 'inductor'"):
        result.compile(lower="inducto")  # type: ignore[arg-type]
    with pytest.raises(QuantfxError, match="wrapper='cpp' goes with lower='onednn' only"):
        result.compile(lower="inductor", wrapper="cpp")


def test_rows_are_credited_by_family() -> None:
    rows = (OpRow("conv1d", 2, 2, None, "kernel"), OpRow("conv2d", 3, 3, None, "kernel"),
            OpRow("cat", 2, 2, None, "layout"), OpRow("mul", 1, 1, None, "fused"))  # fmt: skip
    reached = {"qconv_pointwise": 3, "qconv2d_pointwise.binary": 1, "int8 cat": 1}
    found = {
        row.kind: (row.compiled, dict(row.compiled_kernels))
        for row in compiled_rows(rows, reached, {})
    }
    assert found == {
        "conv1d": (2, {"qconv_pointwise": 2}),
        "conv2d": (2, {"qconv_pointwise": 1, "qconv2d_pointwise.binary": 1}),
        "cat": (2, {"int8 cat": 1, "fused": 1}),
        "mul": (1, {"fused": 1}),
    }


def test_kernels_are_credited_to_the_mode_they_serve() -> None:
    rows = tuple(
        OpRow("linear", 2, 2, None, "kernel", mode=mode)
        for mode in ("weight-only", "static", "dynamic", "fp16")
    )
    reached = {"qlinear_pointwise": 3, "linear_dynamic_fp16": 2, "_weight_int8pack_mm": 1}
    found = {
        row.label: (row.compiled, dict(row.compiled_kernels))
        for row in compiled_rows(rows, reached, {})
    }
    assert found == {
        "linear, weight-only": (1, {"_weight_int8pack_mm": 1}),
        "linear": (2, {"qlinear_pointwise": 2}),
        "linear, dynamic": (1, {"qlinear_pointwise": 1}),
        "linear, fp16": (2, {"linear_dynamic_fp16": 2}),
    }
