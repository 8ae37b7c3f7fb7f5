"""Find and compute arithmetic on stored tensors only."""

from __future__ import annotations

import operator
from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.graph.aliasing import writes_to
from quantfx.passes.graph.graphs import constant, referent
from quantfx.patterns.schema import is_operator_call, overload

_PURE = ("aten", "prims")  # their schemas say what an operator does


def constant_nodes(module: GraphModule, written: Container[Node]) -> dict[Node, frozenset[Node]]:
    """Return every node that depends on stored tensors only, with the nodes it depends on.

    Args:
        module: Owner of the graph.
        written: Stored tensors that the graph writes to.
    """
    found: dict[Node, frozenset[Node]] = {}
    for node in module.graph.nodes:
        if node in written or (constant(module, node) is None and not is_pure(node)):
            continue
        inputs = node.all_input_nodes
        if all(each in found for each in inputs):
            own = frozenset({node} if node.op == "get_attr" else ())
            found[node] = own.union(*(found[each] for each in inputs))
    return found


def constant_chain(source: Node, written: Container[Node]) -> list[Node] | None:
    """Return the nodes that compute ``source``, last first; None unless all are constant.

    Args:
        source: The node that is computed.
        written: Stored tensors that the graph writes to.
    """
    found: dict[Node, None] = {}
    pending = [source]
    while pending:
        node = pending.pop()
        if node in written or not (node.op == "get_attr" or is_pure(node)):
            return None
        found[node] = None
        pending += node.all_input_nodes
    return sorted(found, reverse=True)


def constant_value(module: GraphModule, node: Node) -> Tensor:
    """Return what ``node``, the head of a constant chain, computes.

    Raises:
        TypeError: the value is not a tensor.
    """
    value = _value(module, node)
    if not isinstance(value, Tensor):
        raise TypeError(f"{node.name} is not a tensor")
    return value


def _value(module: GraphModule, head: Node) -> object:
    known: dict[Node, Any] = {}
    chain = _inputs_first(head)
    last = {each: node for node in chain for each in node.all_input_nodes}
    for node in chain:
        if node.op == "get_attr":
            known[node] = referent(module, node)
            continue
        args, kwargs = map_arg((node.args, node.kwargs), known.__getitem__)
        target: Callable[..., Any] = operator.getitem
        if node.target is not operator.getitem:
            target = overload(node)
        with torch.no_grad():
            known[node] = target(*args, **kwargs)
        for each in node.all_input_nodes:
            if last[each] is node:
                del known[each]
    return known[head]


def _inputs_first(head: Node) -> list[Node]:
    found: set[Node] = set()
    pending = [head]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += node.all_input_nodes
    return sorted(found)


def is_pure(node: Node) -> bool:
    """Whether a call gives the same result for the same arguments, and does nothing else."""
    if node.target is operator.getitem:
        return True
    if not is_operator_call(node) or overload(node).namespace not in _PURE or writes_to(node):
        return False
    return not is_random(node)


def is_random(node: Node) -> bool:
    """Whether ``node`` draws random numbers."""
    return is_operator_call(node) and torch.Tag.nondeterministic_seeded in overload(node).tags
