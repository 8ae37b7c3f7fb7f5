"""Copies and views are seen through: what they stand for, and what they are not taken for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Node

from quantfx.passes.export.export_graph import export_graph
from quantfx.passes.export.same_values import Value, View, is_same, value_of
from quantfx.passes.graph.aliasing import overwritten

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
Function = Callable[[Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def stands_for(function: Function, shapes: object = None) -> tuple[str, object]:
    """Return the name of the root, and the steps behind it."""
    graph = export_graph(Net(function).eval(), (X,), None, shapes).graph
    values: dict[Node, Value] = {}
    written = overwritten(graph)
    for node in graph.nodes:
        if node.op != "output":
            values[node] = value_of(node, values, written) or node
    [[result]] = [node.args[0] for node in graph.find_nodes(op="output")]
    value = values[result]
    return (value.root.name, value.steps) if isinstance(value, View) else (str(value), ())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: x.clone(),
        lambda x: x.view(6, 4).reshape(24).view(2, 3, 4),
        lambda x: x.unsqueeze(0).squeeze(0).flatten(1).unflatten(1, (3, 4)),
        lambda x: x.permute(2, 0, 1).permute(1, 2, 0),
        lambda x: x.swapaxes(0, 2).transpose(-1, 0),
        lambda x: x.mT.mT,
        lambda x: F.dropout(x, 0.5, training=False),
        lambda x: F.dropout(x, 0.0, training=True),
        lambda x: x.to(torch.float32).to("cpu"),
    ],
)
def test_an_input_in_disguise_is_the_input(function: Function) -> None:
    assert stands_for(function) == ("x", ())


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda x: x.flatten(), lambda x: x.contiguous().view(6, 4).reshape(-1)),
        (lambda x: x.transpose(0, 1), lambda x: x.permute(1, 0, 2).clone()),
        (lambda x: x.mT.reshape(8, 3), lambda x: x.transpose(1, 2).flatten(0, 1)),
        (lambda x: x.view(6, 4).t(), lambda x: x.flatten(0, 1).T),
    ],
)
def test_the_same_view_in_two_spellings(left: Function, right: Function) -> None:
    assert stands_for(left) == stands_for(right)
    assert stands_for(left)[0] == "x"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda x: x.reshape(3, 2, 4), lambda x: x.transpose(0, 1)),
        (lambda x: x.mT.reshape(6, 4), lambda x: x.reshape(6, 4)),
        (lambda x: x.permute(1, 2, 0), lambda x: x.permute(2, 0, 1)),
        (lambda x: x.flatten(), lambda x: x.flatten(1)),
    ],
)
def test_another_order_or_shape_is_another_value(left: Function, right: Function) -> None:
    assert stands_for(left) != stands_for(right)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.dropout(x, 0.5, training=True),
        lambda x: x.to(torch.float64),
        lambda x: x.expand(5, 2, 3, 4),
        lambda x: x[:, :2],
        lambda x: x.relu(),
    ],
)
def test_what_computes_something_stands_for_itself(function: Function) -> None:
    assert stands_for(function)[0] != "x"


def test_a_copy_is_another_tensor_where_something_is_written() -> None:
    def function(x: Tensor) -> Tensor:
        y = x.exp()
        kept = y.clone()
        y.add_(1.0)
        return kept

    assert stands_for(function) == ("clone", ())


def test_free_sizes_are_compared_as_they_are_called() -> None:
    free = ({0: torch.export.Dim("n", min=2, max=64)},)
    left = stands_for(lambda x: x.reshape(x.shape[0] * 3, 4), free)
    assert left == stands_for(lambda x: x.flatten(0, 1), free)
    assert left != stands_for(lambda x: x.flatten(1), free)
    assert stands_for(lambda x: x.flatten(0, 1).view(x.shape[0], 3, 4), free) == ("x", ())


def test_arguments_are_compared_through_lists() -> None:
    def never(left: Node, right: Node) -> bool:
        raise AssertionError

    assert is_same([1, (2.0, None)], [1, (2.0, None)], never)
    assert is_same({"a": [True]}, {"a": [True]}, never)
    assert not is_same([1], [1, 2], never)
    assert not is_same(1, True, never)
    assert not is_same({"a": 1}, {"b": 1}, never)
