"""Keys of dicts among the inputs come in any order, unless the model reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import InputError
from quantfx.passes.inputs.contract import InputContract, contract_of
from tests.refusals import refused


class Keyed(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.function = function

    def forward(self, x: Tensor, d: Any) -> Tensor:
        return self.function(self.linear(x), d)


X = torch.randn(4, 8)
BY_KEY: list[Callable[..., Tensor]] = [
    lambda y, d: y * d["a"] - d["b"],
    lambda y, d: y + sum(d.values()),
]


@pytest.mark.parametrize("function", BY_KEY)
def test_keys_in_any_order_are_right(function: Any) -> None:
    model = Keyed(function).eval()
    graph = capture(model, (X, {"a": X, "b": X}))  # the same for both
    torch.compiler.reset()
    compiled = torch.compile(graph, backend="eager")
    a, b = torch.randn(4, 8), torch.randn(4, 8)
    for run in (graph, compiled):
        for call in ({"a": a, "b": b}, {"b": b, "a": a}):
            torch.testing.assert_close(run(X, call), model(X, call))
    found = contract_of(graph)
    assert found is not None
    assert InputContract.from_dict(found.to_dict()) == found


def test_a_model_that_reads_the_order_keeps_it() -> None:
    def by_place(y: Tensor, d: Any) -> Tensor:
        first, second = d["inner"][0].values()
        return y * first - second

    model = Keyed(by_place).eval()
    mask, ids = torch.arange(32).view(4, 8), torch.arange(32).view(4, 8)
    graph = capture(model, (X, {"inner": [{"a": mask, "b": ids}]}))
    call = {"inner": [{"a": ids + 1, "b": mask}]}
    torch.testing.assert_close(graph(X, call), model(X, call))
    with refused("input-shape", InputError, site="d"):
        graph(X, {"inner": [{"b": mask, "a": ids}]})
