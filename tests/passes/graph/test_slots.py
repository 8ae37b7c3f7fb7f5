"""Slots: arguments by schema name, by number where there is no schema, and inside lists."""

from __future__ import annotations

import operator

import pytest
import torch
from torch.fx import Graph, Node

from quantfx.passes.graph.slots import read_slot, slots_of, write_slot

aten = torch.ops.aten


@pytest.fixture
def nodes() -> tuple[Node, Node]:
    graph = Graph()
    return graph.placeholder("x"), graph.placeholder("y")


def test_a_schema_gives_the_names(nodes: tuple[Node, Node]) -> None:
    x, y = nodes
    cat = x.graph.call_function(aten.cat.default, ([x, y, x], 1))
    assert list(slots_of(cat)) == [("tensors.0", x), ("tensors.1", y), ("tensors.2", x)]
    write_slot(cat, "tensors.2", y)
    assert cat.args == ([x, y, y], 1)
    assert read_slot(cat, "tensors.2") is y


def test_calls_without_a_schema_count(nodes: tuple[Node, Node]) -> None:
    x, y = nodes
    call = x.graph.call_function(operator.setitem, (x, (slice(None), [y]), 2.0))
    assert list(slots_of(call)) == [("0", x), ("1.1.0", y)]
    write_slot(call, "1.1.0", x)
    write_slot(call, "0", y)
    assert [n for _, n in slots_of(call)] == [y, x]
    assert read_slot(call, "1.1.0") is x


def test_reading_what_is_no_node_is_an_error(nodes: tuple[Node, Node]) -> None:
    add = nodes[0].graph.call_function(aten.add.Tensor, (nodes[0], 2))
    with pytest.raises(TypeError, match="add_tensor.other is 2, not the result of a node"):
        read_slot(add, "other")
