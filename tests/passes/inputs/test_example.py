"""Whatever way example inputs are given, the graph has the model's arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ShapesCollection

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import InputError
from tests.refusals import refused

X = torch.randn(4, 8)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.constant = torch.randn(4, 8)

    def forward(self, q: Tensor, k: Any) -> Tensor:
        k = k["k"] if isinstance(k, dict) else k
        return self.linear(q) - self.linear(k) * self.constant


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, a: Any = None, *, b: Any = None) -> Tensor:
        y: Tensor = self.linear(x) * a
        return y - b


def is_right(model: nn.Module, graph: nn.Module, *inputs: Any, **named: Any) -> None:
    torch.testing.assert_close(graph(*inputs, **named), model(*inputs, **named))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("example", [(X, X), (X, {"k": X}), (X[:1].expand(4, 8),) * 2])
def test_a_tensor_given_twice_is_two_inputs(example: tuple[Any, ...], training: bool) -> None:
    model = Two().eval()
    graph = capture(model, example, training=training).eval()
    other = torch.randn(4, 8)
    is_right(model, graph, other, {"k": X} if isinstance(example[1], dict) else X)


def test_the_models_own_tensors_as_inputs_are_inputs() -> None:
    model = Two().eval()
    graph = capture(model, (model.constant, model.constant))
    is_right(model, graph, torch.randn(4, 8), torch.randn(4, 8))
    graph = capture(model.linear, (model.linear.weight,))
    is_right(model.linear, graph, torch.randn(8, 8))


def test_shapes_by_tensor_hold_for_a_tensor_given_twice() -> None:
    model, x = nn.Bilinear(8, 8, 3).eval(), torch.randn(4, 8)
    collection: Any = ShapesCollection  # which has no types
    shapes = collection()
    shapes[x] = {0: Dim.AUTO}
    graph = capture(model, (x, x), dynamic_shapes=shapes)
    is_right(model, graph, torch.randn(6, 8), torch.randn(6, 8))


def test_keyword_arguments_come_in_the_order_of_the_signature() -> None:
    model = Named().eval()
    named = {"b": torch.randn(4, 8), "a": torch.randn(4, 8)}
    graph = capture(model, (X,), named)
    is_right(model, graph, torch.randn(4, 8), torch.randn(4, 8), b=torch.randn(4, 8))
    is_right(model, graph, torch.randn(4, 8), **named)
    is_right(model, graph, **named, x=X)


def test_an_argument_behind_one_that_was_left_out_is_given_by_name() -> None:
    class Optional(nn.Module):
        def forward(self, x: Tensor, a: Any = None, b: Any = None) -> Tensor:
            return x if b is None else x - b

    model = Optional().eval()
    graph = capture(model, (X,), {"b": torch.randn(4, 8)})
    is_right(model, graph, X, b=torch.randn(4, 8))
    with refused("input-names", InputError, site="b"):
        graph(X, torch.randn(4, 8))
