from __future__ import annotations

import math
import operator

import torch
from torch import Tensor
from torch.fx import Graph, Node

from quantfx.passes.graph.operator_name import is_bookkeeping, namespace, operator_name
from tests.foreign_operators import experts


def call(target: object, val: object = None) -> Node:
    graph = Graph()
    node = graph.create_node("call_function", target, (graph.placeholder("x"),))  # type: ignore[arg-type]
    node.meta["val"] = val
    return node


def a_function(x: Tensor) -> Tensor:
    return x


def test_names_carry_the_namespace() -> None:
    assert experts is not None  # registers the operator
    names = {
        torch.ops.aten.relu.default: "aten.relu.default",
        torch.ops.quantfx_tests.experts.default: "quantfx_tests.experts.default",
        torch.ops.higher_order.cond: "higher_order.cond",
        torch.ops.higher_order.wrap_with_autocast: "higher_order.wrap_with_autocast",
        operator.add: "operator.add",
        a_function: f"{__name__}.a_function",
    }
    for target, name in names.items():
        assert operator_name(call(target)) == name
        assert namespace(call(target)) == name.partition(".")[0]


def test_arithmetic_on_sizes_is_no_operator_and_on_tensors_is() -> None:
    assert is_bookkeeping(call(operator.getitem, torch.zeros(1)))
    assert is_bookkeeping(call(operator.mul, 6))
    assert is_bookkeeping(call(math.floor, 6))
    assert is_bookkeeping(call(torch.sym_max, 6))
    assert not is_bookkeeping(call(operator.add, torch.zeros(1)))
    assert not is_bookkeeping(call(torch.ops.aten.sym_size.int, 6))
    assert not is_bookkeeping(call(torch.ops.higher_order.cond, 6))
