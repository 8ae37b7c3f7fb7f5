"""Calls of an int8 model that Dynamo leaves to Python, in whole or in part."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import quantfx
from quantfx.patterns.errors import QuantfxWarning
from tests.dynamo.models import WIDTH, Mlp, batches
from tests.refusals import refused, warned


def int8(model: nn.Module, **options: Any) -> Any:
    quantized = quantfx.auto(model.eval(), backend="native", calibration_batches=1, **options)
    with torch.no_grad():
        for _ in range(2):
            quantized(batches(1)[0])
    assert quantized.state == "int8"
    return quantized


def test_a_call_that_runs_no_graph_is_said_once() -> None:
    quantized = int8(Mlp())
    x = batches(1)[0]
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        with warned("runs-in-python", site="Mlp"):
            assert torch.equal(quantized(x), quantized.model(x))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quantized(x)
    assert quantized.state == "int8 and float"
    assert quantized.report.graphs[-1].phase == "float"
    assert "left all of it to Python" in quantized.report.graphs[-1].reason


def test_calls_in_training_mode_run_float_graphs_and_are_no_news() -> None:
    quantized = int8(Mlp())
    with warned("stays-float") as caught:
        quantized.train()(batches(1)[0])
    assert len(caught) == 1
    assert quantized.state == "int8"


class Loop(nn.Module):
    """A function with layers, which Dynamo skips: it cannot go on in the middle of a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Mlp()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        for _ in range(2):
            torch._dynamo.graph_break()
            x = functional.linear(x, self.weight)
        return x


def test_a_function_that_dynamo_skips_is_in_the_report() -> None:
    quantized = quantfx.auto(Loop().eval(), backend="native", calibration_batches=1)
    x = batches(1)[0]
    with torch.no_grad():
        with warned("runs-in-python"):
            quantized(x)
        with warnings.catch_warnings():
            warnings.simplefilter("error", QuantfxWarning)
            for _ in range(3):
                quantized(x)
    graphs = quantized.report.graphs
    assert sorted(each.phase for each in graphs) == ["float", "int8"]
    assert "compiles nothing of forward" in str(quantized.report)


def test_in_another_torch_compile_it_computes_in_int8() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + 1

    quantized = int8(Mlp())
    x = batches(1)[0]
    outer = torch.compile(Outer(quantized), backend="eager")
    with torch.no_grad():
        assert torch.equal(outer(x), quantized(x) + 1)
        assert not torch.equal(outer(x), quantized.model(x) + 1)


def test_it_is_not_exported_as_the_float_model_that_it_holds() -> None:
    quantized = int8(Mlp())
    with refused("not-exportable"):
        torch.export.export(quantized, (batches(1)[0],), strict=False)


def test_a_call_that_fails_is_not_taken_for_one_that_was_skipped() -> None:
    quantized = quantfx.auto(Mlp().eval(), backend="native", calibration_batches=2)
    with pytest.raises(RuntimeError):
        quantized(torch.rand(3, WIDTH + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        for _ in range(3):
            quantized(batches(1)[0])
    assert [each.phase for each in quantized.report.graphs] == ["int8"]
