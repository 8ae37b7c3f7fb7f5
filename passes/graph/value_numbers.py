"""Find operators that compute the same value; a compiler merges them."""

from __future__ import annotations

import operator
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.graph.aliasing import sharing_memory, writes_to
from quantfx.patterns.schema import is_operator_call, overload


class _Value(NamedTuple):
    """Stands for a node among another node's arguments; never equal to a literal."""

    number: int


def value_numbers(module: GraphModule) -> dict[Node, int]:
    """Number the values of one graph: calls of one operator on equal arguments get equal numbers.

    Exceptions: calls that draw random numbers, write to a tensor, or read memory that a node writes
    to.
    """
    targets = (target for writer in module.graph.nodes for target in writes_to(writer))
    written = set[Node]().union(*(sharing_memory(target) for target in targets))
    numbers: dict[Hashable, int] = {}
    value: dict[Node, int] = {}
    for node in module.graph.nodes:
        read = {node, *node.all_input_nodes}
        pure = _is_pure(node) and written.isdisjoint(read)
        key = _key(node, value) if pure else node.name
        value[node] = numbers.setdefault(key, len(numbers))
    return value


def _key(node: Node, value: dict[Node, int]) -> Hashable:
    args: Any = map_arg((node.args, node.kwargs), lambda n: _Value(value[n]))
    return (node.op, node.target, str(args))


def _is_pure(node: Node) -> bool:
    """Whether the operator and arguments of ``node`` determine its value."""
    if node.op == "get_attr" or node.target is operator.getitem:
        return True
    if not is_operator_call(node) or writes_to(node):
        return False
    return torch.Tag.nondeterministic_seeded not in overload(node).tags
