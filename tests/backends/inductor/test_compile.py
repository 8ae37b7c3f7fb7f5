from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._inductor.exc import InductorError

import quantfx
from quantfx.backends.checks import targets
from quantfx.backends.inductor.compiler_errors import compiler_errors, inductor_errors
from quantfx.backends.inductor.torch_internals import BackendCompilerFailed
from quantfx.backends.x86 import x86
from quantfx.passes.errors import ContractError
from quantfx.passes.quant.spec import QuantSpec
from tests import unchecked
from tests.export_cases import ROWS, Net
from tests.models.small import cat_pool_net
from tests.refusals import refused

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_compiling_needs_no_switches_and_leaves_none() -> None:
    """Outside, freezing is off and gradients are on: Inductor alone would lower nothing."""
    assert not torch._inductor.config.freezing
    assert torch.is_grad_enabled()
    result = quantfx.quantize(cat_pool_net(), (IMAGE,), calibration=[IMAGE])
    assert result.report.compiled is None
    compiled = result.compile()
    assert not torch._inductor.config.freezing
    assert torch.is_grad_enabled()
    rows = {row.kind: row for row in result.report.rows}
    assert rows["conv2d"].compiled_kernels == {"qconv_pointwise": 3}
    assert rows["linear"].compiled_kernels == {"qlinear_pointwise": 1}
    report = result.report
    assert report.planned == report.converted == report.lowered == report.compiled == 9
    assert not compiled(IMAGE).requires_grad
    exact = result.quantized(IMAGE)
    # A kernel may round a value at a tie to the other side: one step of an inner tensor.
    assert float((compiled(IMAGE) - exact).abs().max()) < 0.02 * float(exact.abs().max())


# In CI test_declare_layouts.py has convolutions of other sizes, test_compiled_2_13.py a free batch.
@pytest.mark.sweep
def test_a_dynamic_batch_compiles() -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    result = quantfx.quantize(
        cat_pool_net(), (IMAGE,), calibration=[IMAGE], dynamic_shapes=({0: batch},)
    )
    compiled = result.compile()
    assert result.report.compiled == 9
    for size in (3, 5):
        assert compiled(IMAGE[:1].repeat(size, 1, 1, 1)).shape[0] == size


def test_equal_sites_are_merged_and_no_shortage() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x).sin() + self.linear(x).cos()

    x = torch.randn(4, 8)
    result = unchecked.quantize(Twice().eval(), (x,))
    result.compile()
    [row] = result.report.rows
    assert (row.planned, row.lowered, row.compiled) == (2, 2, 2)
    assert row.compiled_kernels == {"qlinear_pointwise": 1, "merged with its equal": 1}


KERNELS = {
    "static": {"qlinear_pointwise": 2, "qlinear_pointwise.binary": 1},
    "dynamic": {"qlinear_pointwise.tensor": 2, "qlinear_pointwise.binary_tensor": 1},
    "fp16": {"linear_relu_dynamic_fp16": 1, "linear_dynamic_fp16": 2},
    "weight-only": {"weight_linear": 3},
}


def linears(mode: str) -> quantfx.Result:
    torch.manual_seed(0)
    layers = (nn.Linear(8, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 4))
    model = Net(lambda f, g, h, x: h(g(y := f(x).relu()) + y), *layers).eval()
    return unchecked.quantize(model, (ROWS,), config=mode)


# In CI test_fuse_sums.py compiles a static sum, tests/backends/weight_only/test_family.py the other.
@pytest.mark.parametrize("mode", [
    pytest.param(mode, marks=[pytest.mark.sweep] * (mode in ("static", "weight-only")))
    for mode in KERNELS
])  # fmt: skip
def test_every_mode_reaches_its_kernel(mode: str) -> None:
    result = linears(mode)
    compiled = result.compile()
    [row] = result.report.rows
    assert (row.planned, row.compiled, row.compiled_kernels) == (3, 3, KERNELS[mode])
    torch.testing.assert_close(compiled(ROWS), result.quantized(ROWS), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not targets.has_bfloat16(), reason="this CPU has no bfloat16 instructions")
@pytest.mark.parametrize("mode", ["static", "dynamic", "weight-only"])
def test_int8_mixes_with_bfloat16(mode: str) -> None:
    result = linears(mode)
    compiled = result.compile(autocast=torch.bfloat16)
    assert result.report.compiled == 3
    exact = result.quantized(ROWS)
    mixed = compiled(ROWS)
    assert mixed.dtype == (torch.float32 if mode == "weight-only" else torch.bfloat16)
    assert float((mixed - exact).abs().max()) < 0.02 * float(exact.abs().max())
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.skipif(not targets.has_bfloat16(), reason="this CPU has no bfloat16 instructions")
def test_the_callers_own_autocast_counts() -> None:
    compiled = linears("static").compile()
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(ROWS).dtype == torch.bfloat16
    assert compiled(ROWS).dtype == torch.float32


def test_autocast_to_half_is_refused() -> None:
    result = linears("static")
    with refused("autocast-dtype", site="torch.float16", fix="torch.bfloat16"):
        result.compile(autocast=torch.float16)
    compiled = result.compile()
    with torch.autocast("cpu", torch.float16), refused("autocast-dtype", site="torch.float16"):
        compiled(ROWS)


def test_bfloat16_is_refused_where_the_cpu_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with refused("autocast-dtype", site="torch.bfloat16"):
        linears("dynamic").compile(autocast=torch.bfloat16)


@pytest.fixture(scope="module")
def dynamic() -> tuple[quantfx.Result, Callable[..., Tensor]]:
    """Compiled once: its ranges are those of each call."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 16)).eval()
    result = unchecked.quantize(model, (torch.rand(8, 32),), config="dynamic")
    return result, result.compile()


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_dynamic_range_holds_zero_when_compiled_too(
    shift: float, spread: float, dynamic: tuple[quantfx.Result, Callable[..., Tensor]]
) -> None:
    """torch 2.13: what Inductor makes of choose_qparams leaves zero out (5.7 dB instead of 48)."""
    result, compiled = dynamic
    x = torch.rand(8, 32) * spread + shift
    torch.testing.assert_close(compiled(x), result.quantized(x), rtol=1e-3, atol=1e-4)


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


@pytest.mark.parametrize(("layer", "x", "mode"), [
    pytest.param(lambda: nn.Linear(8, 8), ROWS, "static", marks=pytest.mark.sweep),
    pytest.param(lambda: nn.Linear(8, 8), ROWS, "dynamic", marks=pytest.mark.sweep),
    (lambda: nn.Conv2d(3, 3, 3, padding=1), IMAGE, "static"),
])  # fmt: skip
def test_a_layer_that_is_called_twice_is_lowered_twice(
    layer: Callable[[], nn.Module], x: Tensor, mode: str
) -> None:
    torch.manual_seed(0)
    result = unchecked.quantize(Twice(layer()).eval(), (x,), config=mode)
    compiled = result.compile()
    assert result.report.compiled == 2
    torch.testing.assert_close(compiled(x), result.quantized(x), rtol=1e-2, atol=1e-2)


def test_weights_with_zero_points_are_not_compiled() -> None:
    weight = QuantSpec(torch.int8, -64, 63, axis=0, observer="min_max")
    backend = x86().with_specs(linear_weight=weight)
    result = unchecked.quantize(nn.Linear(8, 8).eval(), (ROWS,), backend=backend)
    with refused("no-kernel", ContractError, site="linear", says="has zero points"):
        result.compile()


def test_what_a_backend_of_dynamo_raised_is_the_reason() -> None:
    failed = BackendCompilerFailed(compile, AssertionError("no producer for u0\nat node 7"), None)
    with (
        refused("compiler-failed", says=r"AssertionError: no producer for u0\)") as caught,
        compiler_errors(),
    ):
        raise failed
    assert caught.value.__cause__ is failed


def test_what_inductor_raised_names_the_graph_and_the_way_out() -> None:
    failed = InductorError(ValueError("no lowering for this\nat node 7"), None)
    with (
        refused("compiler-failed", site="forward") as caught,
        inductor_errors("forward"),
    ):
        raise failed
    assert "at node 7" not in str(caught.value)
    with pytest.raises(KeyError), inductor_errors("forward"):  # Dynamo's own, or whoever's
        raise KeyError("x")
