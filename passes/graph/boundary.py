"""Find the tensor behind a nested graph's placeholder: the operand that control flow passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.nested_calls import nested_calls

GraphNode: TypeAlias = tuple[str, Node]  # the path of a graph, and a node in it


def operands(module: GraphModule) -> Mapping[Node, GraphNode]:
    """Return, for each placeholder of a branch or region, the graph path and node it stands for.

    Loops are omitted: a carried value is a different tensor in every iteration.
    """
    paths = {id(graph_module): path for path, graph_module in all_graphs(module)}
    found: dict[Node, GraphNode] = {}
    for path, graph_module in all_graphs(module):
        for call in nested_calls(graph_module):
            for nested in call.graphs:
                if id(nested) in paths:
                    inner = nested.graph.find_nodes(op="placeholder")
                    found.update(
                        (placeholder, (path, operand))
                        for placeholder, operand in zip(inner, call.operands, strict=True)
                        if isinstance(operand, Node)
                    )
    return found


def resolve(inner: GraphNode, known: Mapping[Node, GraphNode]) -> GraphNode:
    """Follow placeholders outwards to the node that computes the tensor."""
    while inner[1] in known:
        inner = known[inner[1]]
    return inner
