"""What Inductor of torch 2.13 makes of lowered graphs: wrappers, free sizes, code without copies.

Libraries compiled ahead of time are in ``tests/test_package.py``.
"""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest
import torch
import torch._inductor.config
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.utils import run_and_get_code

import quantfx
from quantfx import backends
from quantfx.backends.checks import targets
from quantfx.backends.inductor.compile import CompiledModule
from quantfx.tools.models.resnet import resnet18
from tests import unchecked
from tests.export_cases import Net
from tests.models.small import cat_pool_net
from tests.refusals import refused

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SMALL_RESNET = ((1, 1), 16, 10)


def quantize(model: nn.Module, x: torch.Tensor, **options: Any) -> quantfx.Result:
    return unchecked.quantize(model, (x,), **options)


Compiled = tuple[quantfx.Result, CompiledModule]


@pytest.fixture(scope="module")
def pooled() -> Compiled:
    """Compiled once, for all who change nothing of it."""
    result = quantize(cat_pool_net(), IMAGE)
    compiled = result.compile()
    assert isinstance(compiled, CompiledModule)
    return result, compiled


def test_a_generated_cpp_wrapper_computes_the_same(pooled: Compiled) -> None:
    result, python = pooled
    cpp = result.compile(wrapper="cpp")
    assert torch.equal(cpp(IMAGE), python(IMAGE))
    assert cpp.kernels == python.kernels
    assert not torch._inductor.config.cpp_wrapper


def test_an_unknown_wrapper(pooled: Compiled) -> None:
    result, _ = pooled
    with refused("unknown-name", site="cp", fix="cpp"):
        result.compile(wrapper="cp")  # type: ignore[arg-type]


def test_the_code_holds_kernel_calls_and_three_loops_and_no_copy() -> None:
    """Quantize the input (into channels_last), pool, average: everything else is oneDNN's."""
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = quantize(resnet18(*SMALL_RESNET), x)
    compiled = CompiledModule(result.backend.lower(result.quantized))
    counters.clear()
    _, [code] = run_and_get_code(compiled, x)
    found = [name for name in counters["inductor"] if "prepack_matcher" in name]
    assert not found, "patterns of Inductor's, which torch 2.14 has no more"
    body = code[code.index("def call(") :]
    calls = re.findall(r"torch\.ops\.onednn\.(\w+)\.", body)
    assert sorted(set(calls)) == ["qconv2d_pointwise", "qconv_pointwise", "qlinear_pointwise"]
    assert len(calls) == result.report.planned - 3, "all but max pool, average pool and flatten"
    loops = re.findall(r"(cpp_fused_\w+)\(", body)
    assert loops == [
        "cpp_fused_quantize_per_tensor_0",
        "cpp_fused_max_pool2d_with_indices_1",
        loops[2],
    ]
    assert "mean" in loops[2]
    assert "clone" not in body
    assert "copy_" not in body
    assert ".contiguous(" not in body


@pytest.mark.parametrize(
    "channels", [8, *(pytest.param(each, marks=pytest.mark.sweep) for each in (1, 3, 7, 16))]
)
def test_vectors_of_few_channels_reach_the_kernels(channels: int) -> None:
    """Inductor writes vectors of up to 8 constants into its loops."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Flatten(),
                          nn.Linear(channels * 196, channels)).eval()  # fmt: skip
    result = quantize(model, IMAGE)
    compiled = result.compile()
    torch.testing.assert_close(compiled(IMAGE), result.module(IMAGE), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", [1, pytest.param(2, marks=pytest.mark.sweep)])
def test_a_convolution_of_one_dimension_before_a_float_sum(padding: int) -> None:
    """The packed weight of conv1d says four dimensions: Inductor inferred a wrong shape by it."""
    torch.manual_seed(0)
    x = torch.randn(1, 4, 7)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 2 * padding + 1, padding=padding)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) + x.sin()

    result = quantize(Block().eval(), x)
    torch.testing.assert_close(result.compile()(x), result.module(x), rtol=1e-5, atol=1e-6)


def test_control_flow_runs_its_kernels() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = torch.cond(
                x.sum() > 0, lambda x: self.one(x).relu(), lambda x: self.two(x), (x,)
            )
            return y

    torch.manual_seed(0)
    x = torch.rand(4, 8)
    result = unchecked.quantize(Branch().eval(), (x,), calibration=[x, -x])
    assert result.report.planned == result.report.lowered == 2
    for given in (x, -x):
        with torch.no_grad():
            torch.testing.assert_close(
                result.module(given), result.quantized(given), rtol=1e-4, atol=1e-5
            )
    compiled = result.compile()
    for given in (x, -x):
        torch.testing.assert_close(compiled(given), result.module(given), rtol=1e-4, atol=1e-5)


def test_xpu_graphs_are_refused_when_run_here() -> None:
    backend = backends.get("xpu", target="any")
    result = quantize(cat_pool_net(), IMAGE, backend=backend)
    assert result.report.lowered == result.report.planned
    for run in (lambda: result.module(IMAGE), result.compile, result.compare_sites):
        with refused("not-here"):
            run()


def test_new_shapes_compile_and_calls_cost_no_settings() -> None:
    """Settings are entered while something compiles; a call that does not, leaves them alone."""
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=1, max=64)
    model = nn.Linear(8, 8).eval()
    result = unchecked.quantize(model, (x,), dynamic_shapes=({0: batch},))
    compiled = result.compile()
    assert isinstance(compiled, CompiledModule)
    entered: list[object] = []
    with mock.patch("quantfx.backends.inductor.compile.compiling", entered.append):
        compiled(x)
    assert entered == []
    for size in (1, 9):
        given = x[:1].expand(size, -1)
        torch.testing.assert_close(compiled(given), result.module(given), rtol=1e-5, atol=1e-6)
    assert [call.kernel for call in compiled.kernels] == ["qlinear_pointwise"]


def test_errors_of_the_model_reach_the_caller(pooled: Compiled) -> None:
    _, compiled = pooled
    with pytest.raises(Exception, match=r"channels|size|shape|rank|dim"):
        compiled(torch.randn(2, 5, 16, 16))
    assert compiled(IMAGE).shape == (2, 5)


# Calls of weights alone are folded as those of static ranges are; those of dynamic ones stay.
SWEPT = [pytest.param(mode, marks=pytest.mark.sweep) for mode in ("dynamic", "fp16", "weight-only")]


@pytest.mark.parametrize("mode", ["static", *SWEPT])
def test_a_linear_of_a_constant_is_computed_once(mode: str) -> None:
    """Learned queries, too large for fold-constants: freezing folds the call, which is no shortage."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 64)

    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(64, 64), nn.Linear(64, 64)
            self.learned = nn.Parameter(torch.randn(1, 1, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            queries = self.query(self.learned.expand(1, 5000, 64))
            return (queries @ self.key(x).transpose(1, 2)).softmax(-1)

    result = unchecked.quantize(Queries().eval(), (x,), config=mode)
    compiled = result.compile()
    assert result.report.compiled == result.report.planned == 2
    if mode != "dynamic":
        assert next(site.compiled for site in result.report.sites) == "folded to a constant"
    torch.testing.assert_close(compiled(x), result.quantized(x), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not targets.has_bfloat16(), reason="this CPU has no bfloat16 instructions")
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_conversions_of_the_model_do_not_stop_autocast(mode: str) -> None:
    """torch.export asserts float32 before ``x.float()``, where autocast gives bfloat16."""
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model = Net(
        lambda f, g, x: g(f(x).float().softmax(-1)), nn.Linear(8, 8), nn.Linear(8, 8)
    ).eval()
    result = unchecked.quantize(model, (x,), config=mode)
    mixed = result.compile(autocast=torch.bfloat16)(x)
    torch.testing.assert_close(mixed.float(), result.quantized(x), rtol=0.05, atol=0.02)


def test_quantizing_and_running_in_inference_mode() -> None:
    with torch.inference_mode():
        result = quantize(cat_pool_net(), IMAGE)
        expected = result.quantized(IMAGE)
        for run in (result.module, result.compile()):
            torch.testing.assert_close(run(IMAGE), expected, rtol=1e-2, atol=1e-2)


def test_what_a_library_would_lose_or_not_take_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("n", torch.zeros(1))
            self.n: torch.Tensor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.n.add_(1)
            return self.linear(x) * self.n

    class Choice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = torch.cond(
                x.sum() > 0, lambda x: self.linear(x), lambda x: x * 2, (x,)
            )
            return y

    x = torch.rand(4, 8)
    for model, rule in ((Counting(), "written-buffer: n"), (Choice(), "aot-branch")):
        result = quantize(model.eval(), x)
        with refused(rule):
            result.compile(wrapper="aot")
