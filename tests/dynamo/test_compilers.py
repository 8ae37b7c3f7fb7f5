"""The entry points: found without an import, careful about options, honest about devices."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

import quantfx
from quantfx.dynamo import compilers
from quantfx.dynamo.options import Options, read_options
from quantfx.passes.errors import OptionError
from tests.dynamo.models import Mlp, batches, close, compiled, phases
from tests.refusals import refused, warned

NAMES = ("quantfx_x86", "quantfx_xpu", "quantfx_native", "quantfx_lower")


def test_backends_are_found_and_run_without_importing_quantfx() -> None:
    code = (
        "import sys, torch\n"
        f"assert set({NAMES!r}) <= set(torch._dynamo.list_backends())\n"
        "assert 'quantfx' not in sys.modules\n"
        "model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU()).eval()\n"
        "fast = torch.compile(model, backend='quantfx_native', options={'calibration_batches': 2})\n"
        "x = torch.rand(4, 16)\n"
        "same = [torch.equal(fast(x), model(x)) for _ in range(3)]\n"
        "assert same == [True, True, False], same\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_what_torch_calls_now_and_later(name: str) -> None:
    parameters = inspect.signature(getattr(compilers, name)).parameters
    assert list(parameters)[:4] == ["gm", "example_inputs", "options", "mode"]
    assert parameters["options"].kind is inspect.Parameter.KEYWORD_ONLY
    assert any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"calibration_step": 3},
            "unknown-name: calibration_step",
        ),
        ({"calibration_batches": "8"}, "option-value: calibration_batches"),
        ({"calibration_batches": True}, "option-value: calibration_batches"),
        ({"calibration_batches": -1}, "option-value: calibration_batches"),
        ({"strict": 1}, "option-value: strict"),
        ({"check_weights": None}, "option-value: check_weights"),
        ({"state": {}}, "option-value: state"),
        ({"input_fn": 3}, "option-value: input_fn"),
        ({"calibration": [torch.ones(2)]}, "option-value: calibration"),
        ({"calibration": 3}, "option-value: calibration"),
        ({"calibration": iter(()), "calibration_batches": 2}, "option-value: calibration"),
        ({"reduce_rang": True}, "unknown-name: reduce_rang"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with refused(message, OptionError):
        read_options("quantfx_x86", "x86", options, None)


def test_options_are_not_changed_and_reach_the_backend() -> None:
    given = {"calibration_batches": 3, "reduce_range": True, "config": "static", "target": "avx2"}
    before = dict(given)
    options = read_options("quantfx_x86", "x86", given, "default")
    assert given == before
    assert options.calibration_batches == 3
    backend = options.backend("x86")
    assert backend == quantfx.backends.get("x86", target="avx2", reduce_range=True)
    assert Options().calibration_batches == 8


def test_an_option_of_another_backend_is_unknown() -> None:
    with refused("unknown-name", OptionError, site="engine", says="quantfx_x86"):
        read_options("quantfx_x86", "x86", {"engine": "fbgemm"}, None)
    assert read_options("quantfx_native", "native", {"engine": "fbgemm"}, None).rest


def test_modes_are_inductors() -> None:
    fast = torch.compile(Mlp().eval(), backend="quantfx_native", mode="max-autotune")
    with refused("option-value", BackendCompilerFailed, site="mode", says="quantfx_native"):
        fast(batches(1)[0])


def test_compiling_twice_with_the_same_options_works() -> None:
    model = Mlp().eval()
    options: Any = {"calibration_batches": 1, "config": quantfx.Config("static")}
    data = batches(1) * 2
    for _ in range(2):
        fast = torch.compile(model, backend="quantfx_native", options=options)
        for x in data:
            assert close(fast(x), model(x))
    other: Any = {"calibration": quantfx.Batches(data)}
    again: Any = {"calibration": quantfx.Batches(data)}
    for given in (other, again):
        fast = torch.compile(model, backend="quantfx_native", options=given)
        assert close(fast(x), model(x))


def test_xpu_says_what_it_cannot_do_here() -> None:
    fast = torch.compile(Mlp().eval(), backend="quantfx_xpu")
    with refused("not-here", BackendCompilerFailed, site="xpu", fix="quantfx.quantize("):
        fast(batches(1)[0])


def test_a_call_outside_of_torch_compile_is_refused() -> None:
    graph = torch.fx.symbolic_trace(Mlp().eval())
    with refused("outside-dynamo", fix="torch.compile"):
        compilers.quantfx_x86(graph, batches(1))


def test_a_graph_that_cannot_be_captured_is_an_error_or_a_float_graph() -> None:
    class Autocasts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(32, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.linear(x)

    model, x = Autocasts().eval(), batches(1)[0]
    fast, _ = compiled(model)
    with refused("not-an-operator", BackendCompilerFailed, says="_enter_autocast"):
        fast(x)
    torch.compiler.reset()
    fast, state = compiled(model, strict=False)
    with warned("stays-float"):
        assert torch.equal(fast(x), model(x))
    assert phases(state) == [("float", 0)]


def test_a_graph_with_nothing_to_quantize_says_why() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(8, 32, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x.double(), self.weight)

    model, x = Odd().eval(), batches(1)[0]
    fast, state = compiled(model, "quantfx_x86")
    with warned("stays-float"):
        assert torch.equal(fast(x), model(x))
    assert phases(state) == [("float", 0)]
    assert "nothing to quantize" in str(state.report)


def test_a_double_model_is_told_its_way_out() -> None:
    fast, state = compiled(Mlp().eval().double(), "quantfx_x86")
    x = batches(1)[0].double()
    with warned("stays-float", says=r"float64.*model\.float\(\)"):
        fast(x)
    assert phases(state) == [("float", 0)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_model_is_int8_and_keeps_its_dtype(dtype: torch.dtype) -> None:
    model = Mlp().eval().to(dtype)
    fast, state = compiled(model, "quantfx_native", 1)
    x = batches(1)[0].to(dtype)
    with torch.no_grad():
        fast(x)
        given, expected = fast(x), model(x)
    assert phases(state) == [("int8", 1)]
    assert given.dtype == dtype
    assert float((given - expected).abs().max()) < 0.05 * float(expected.abs().max())
