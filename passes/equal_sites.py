"""Find operators that compute the same value: a compiler merges them into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.contract import planned_matches
from quantfx.passes.graphs import all_graphs


def repeated_kinds(module: GraphModule) -> Counter[str]:
    """Return, by operator kind, how many planned matches repeat the value of an earlier one."""
    repeated = {path: _repeated(graph_module) for path, graph_module in all_graphs(module)}
    return Counter(
        match.annotation.kind
        for match in planned_matches(module)
        if match.site.node in repeated[match.site.graph]
    )


def _repeated(module: GraphModule) -> set[str]:
    """Number values: calls of one operator on equally numbered arguments are equal."""
    numbers: dict[Hashable, int] = {}
    value: dict[Node, int] = {}
    repeated: set[str] = set()
    for node in module.graph.nodes:
        key = _key(node, value)
        if key in numbers:
            repeated.add(node.name)
        value[node] = numbers.setdefault(key, len(numbers))
    return repeated


def _key(node: Node, value: dict[Node, int]) -> Hashable:
    if node.op in ("placeholder", "output", "call_module"):
        return node.name
    args: Any = map_arg((node.args, node.kwargs), lambda n: value[n])
    return (node.op, node.target, str(args))
