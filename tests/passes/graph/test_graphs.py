from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace

from quantfx.passes.graph.graphs import constant, constants, is_stored, module_calls


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.register_buffer("table", torch.ones(3))
        self.relu, self.tanh = nn.ReLU(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.tanh(x) + self.inner.get_buffer("table"))


def graph() -> GraphModule:
    return symbolic_trace(Net())


def test_a_constant_is_a_stored_tensor_that_a_node_reads() -> None:
    module = symbolic_trace(Net())
    read = module.graph.get_attr("inner.table")
    [x] = module.graph.find_nodes(op="placeholder")
    assert constant(module, read) is module.inner.table  # type: ignore[union-attr]
    assert constant(module, x) is None
    assert constant(module, 0.5) is None
    assert constant(module, module.graph.get_attr("relu")) is None


def test_constants_are_what_is_read() -> None:
    module = graph()
    before = [(node.target, value) for node, value in constants(module)]
    module.graph.get_attr("inner.table")
    after = [(node.target, value) for node, value in constants(module)]
    assert len(after) == len(before) + 1
    assert after[-1] == ("inner.table", module.get_buffer("inner.table"))


def test_module_calls_are_those_of_a_class_in_graph_order() -> None:
    module = graph()
    assert [node.target for node, _ in module_calls(module, nn.ReLU)] == ["relu"]
    assert [called for _, called in module_calls(module, nn.Module)] == [module.tanh, module.relu]


def test_what_is_stored_is_found_under_dotted_names() -> None:
    module = graph()
    assert is_stored(module, "inner.table")
    assert is_stored(module, "inner")
    assert not is_stored(module, "inner.chair")
    assert not is_stored(module, "outer.table")
