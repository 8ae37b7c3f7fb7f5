"""Find operators that compute the same value: a compiler merges them into one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.contract import planned_matches
from quantfx.passes.graphs import Site, all_graphs


def repeated_sites(module: GraphModule) -> frozenset[Site]:
    """Return the planned sites of a q/dq graph that repeat the value of an earlier one."""
    repeated = {path: _repeated(graph_module) for path, graph_module in all_graphs(module)}
    return frozenset(
        match.site
        for match in planned_matches(module)
        if match.site.node in repeated[match.site.graph]
    )


def _repeated(module: GraphModule) -> set[str]:
    found: set[str] = set()
    seen: set[int] = set()
    for node, number in value_numbers(module).items():
        if number in seen:
            found.add(node.name)
        seen.add(number)
    return found


def value_numbers(module: GraphModule) -> dict[Node, int]:
    """Number the values of one graph: calls of one operator on equal arguments are equal."""
    numbers: dict[Hashable, int] = {}
    value: dict[Node, int] = {}
    for node in module.graph.nodes:
        value[node] = numbers.setdefault(_key(node, value), len(numbers))
    return value


def _key(node: Node, value: dict[Node, int]) -> Hashable:
    if node.op in ("placeholder", "output", "call_module"):
        return node.name
    args: Any = map_arg((node.args, node.kwargs), lambda n: value[n])
    return (node.op, node.target, str(args))
