"""Autocast regions are seen as calls of nested graphs, as branches are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.backends.checks import targets
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.nested_calls import autocast_dtype, nested_calls
from tests.refusals import refused
from tests.unchecked import capture

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Mixed(nn.Module):
    """One linear inside an autocast region, one behind it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dtype = dtype
        self.inner, self.outer = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=self.dtype):
            y = self.inner(x)
        return self.outer(y.float())


def test_the_weights_of_an_autocast_region_become_its_constants() -> None:
    model = Mixed(torch.bfloat16).eval()
    graph = capture(model, (X,))
    [call] = nested_calls(graph)
    assert autocast_dtype(call.node) == torch.bfloat16
    assert [operand.name for operand in call.operands] == ["x"]
    assert torch.equal(graph(X), model(X))


def test_both_linears_are_quantized_and_the_region_stays() -> None:
    result = quantfx.quantize(Mixed(torch.bfloat16).eval(), (X,), calibration=[X])
    assert [(row.kind, row.planned, row.converted) for row in result.report.rows] == [
        ("linear", 2, 2)
    ]
    assert len(list(all_graphs(result.quantized))) == 2
    assert torch.allclose(result.quantized(X), Mixed(torch.bfloat16)(X), atol=0.05)


@pytest.mark.parametrize(("dtype", "able", "message"), [
    (torch.float16, True, "autocast-dtype: torch.float16"),
    (torch.bfloat16, False, "autocast-dtype: torch.bfloat16"),
])  # fmt: skip
def test_a_region_that_the_kernels_do_not_mix_with_is_not_compiled(
    dtype: torch.dtype, able: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "has_bfloat16", lambda: able)
    result = quantfx.quantize(Mixed(dtype).eval(), (X,), calibration=[X])
    with refused(message):
        result.compile()
