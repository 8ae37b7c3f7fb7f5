"""Which tensor a nested graph's placeholder is: the operand that control flow passes to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.graphs import all_graphs
from quantfx.passes.sink_constants import branches

Place: TypeAlias = tuple[str, Node]
_COND = torch.ops.higher_order.cond


def operands(module: GraphModule) -> Mapping[Node, Place]:
    """Return, for each placeholder of a cond branch, the graph path and node it stands for.

    Loops are left out: a carried value is another tensor in every iteration.
    """
    paths = {id(graph_module): path for path, graph_module in all_graphs(module)}
    found: dict[Node, Place] = {}
    for path, graph_module in all_graphs(module):
        for cond in graph_module.graph.find_nodes(op="call_function", target=_COND):
            passed: Any = cond.args[3]
            for branch in branches(graph_module, cond):
                if id(branch) in paths:
                    inner = branch.graph.find_nodes(op="placeholder")
                    found.update(
                        (placeholder, (path, operand))
                        for placeholder, operand in zip(inner, passed, strict=True)
                    )
    return found


def resolve(place: Place, known: Mapping[Node, Place]) -> Place:
    """Follow placeholders outwards to the node that computes the tensor."""
    while place[1] in known:
        place = known[place[1]]
    return place
