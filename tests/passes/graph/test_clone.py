from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from quantfx.passes.graph.clone import Copies, clone


def graph(*, requires_grad: bool = True) -> GraphModule:
    owner = nn.Module()
    owner.weight = nn.Parameter(torch.ones(2), requires_grad)
    owner.register_buffer("count", torch.zeros(1))
    nodes = Graph()
    nodes.output((nodes.get_attr("weight"), nodes.get_attr("count")))
    return GraphModule(owner, nodes)


def shares(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr()


@pytest.mark.parametrize(
    ("copies", "weight", "count"),
    [("nothing", True, True), ("buffers", True, False), ("all", False, False)],
)
def test_a_copy_shares_what_it_does_not_copy(copies: Copies, weight: bool, count: bool) -> None:
    module = graph()
    copy = clone(module, copies)
    assert shares(copy.get_parameter("weight"), module.get_parameter("weight")) == weight
    assert shares(copy.get_buffer("count"), module.get_buffer("count")) == count


@pytest.mark.parametrize("copies", ["nothing", "buffers", "all"])
@pytest.mark.parametrize("before", [True, False])
def test_a_parameter_is_another_one_and_asks_for_gradients_as_before(
    copies: Copies, before: bool
) -> None:
    module = graph(requires_grad=before)
    weight = clone(module, copies).get_parameter("weight")
    assert weight is not module.get_parameter("weight")
    assert weight.requires_grad == before


@pytest.mark.parametrize("copies", ["buffers", "all"])
def test_without_gradients_no_parameter_asks_for_them(copies: Copies) -> None:
    module = graph()
    assert not clone(module, copies, gradients=False).get_parameter("weight").requires_grad
    assert module.get_parameter("weight").requires_grad
