"""The signature of a prepared graph, equal for equal computations on inputs of any shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import all_graphs, module_calls, referent
from quantfx.patterns.schema import arguments, is_operator_call, overload

# Arguments that are numbers if shapes are fixed, and computed if shapes are free.
_SIZES = frozenset({"size", "shape", "end", "length"})


def observer_calls(module: GraphModule) -> list[tuple[GraphModule, Node, nn.Module]]:
    """Return the calls of observers, in graph order."""
    return [
        (graph_module, node, called)
        for _, graph_module in all_graphs(module)
        for node, called in module_calls(graph_module, nn.Module)
    ]


def signature(prepared: GraphModule, inputs: Sequence[str]) -> tuple[object, ...]:
    """Return what ``prepared`` computes and observes, operator by operator, ignoring sizes.

    Graphs that share ranges must have equal signatures. Dynamo makes a graph for each value of a
    flag or number that the model takes, and each may see other values at the same layer.

    Args:
        prepared: A graph with observers.
        inputs: Sources of its inputs, e.g. ``L['x']``.
    """
    groups: dict[int, int] = {}
    rows: list[object] = []
    for path, graph_module in all_graphs(prepared):
        numbers: dict[Node, int] = {}
        sources = iter(inputs)
        for node in graph_module.graph.nodes:
            source = next(sources, "") if node.op == "placeholder" and not path else ""
            value = node.meta.get("val")
            kinds = (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
            if isinstance(value, kinds) and not isinstance(value, Tensor):
                continue  # computed from shapes, or fixed where these are
            numbers[node] = len(numbers)
            rows.append((path, source, *_row(graph_module, node, numbers, groups)))
    return tuple(rows)


def _row(
    module: GraphModule, node: Node, numbers: dict[Node, int], groups: dict[int, int]
) -> tuple[object, ...]:
    if node.op == "call_module":
        observer = referent(module, node)
        target: object = groups.setdefault(id(observer), len(groups))
        return (target, getattr(observer, "spec", None), _plain(node.args, numbers))
    if not is_operator_call(node):
        target = "" if node.op == "placeholder" else str(node.target)
        return (node.op, target, _plain(node.args, numbers), _plain(node.kwargs, numbers))
    names = tuple(arguments(overload(node)))
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    kept = {name: value for name, value in given.items() if name not in _SIZES}
    return (node.op, str(node.target), _plain(kept, numbers))


def _plain(value: Any, numbers: dict[Node, int]) -> object:
    """Return an argument in hashable form, with nodes as their numbers."""
    if isinstance(value, Node):
        return ("node", numbers.get(value))
    if isinstance(value, dict):
        return tuple((str(key), _plain(each, numbers)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_plain(each, numbers) for each in value)
    return repr(value)
