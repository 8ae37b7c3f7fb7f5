"""Arithmetic on stored tensors alone: find it, and compute it."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.aliasing import writes_to
from quantfx.passes.graphs import attribute
from quantfx.patterns.schema import is_aten_call, overload


def constant_chain(source: Node, written: Container[Node]) -> list[Node] | None:
    """Return the nodes that compute ``source``, last first, None unless all are constant.

    Args:
        source: What is computed.
        written: Stored tensors that the graph writes to.
    """
    found: dict[Node, None] = {}
    pending = [source]
    while pending:
        node = pending.pop()
        pure = node.op == "get_attr" or (is_aten_call(node) and not writes_to(node))
        if not pure or node in written or _draws(node):
            return None
        found[node] = None
        pending += node.all_input_nodes
    return sorted(found, reverse=True)


def constant_value(module: GraphModule, node: Node) -> Tensor:
    """Return what ``node``, the head of a constant chain, computes.

    Raises:
        TypeError: it is no tensor.
    """
    if node.op == "get_attr":
        value: object = attribute(module, str(node.target))
    else:
        args = map_arg(node.args, lambda n: constant_value(module, n))
        kwargs = map_arg(node.kwargs, lambda n: constant_value(module, n))
        with torch.no_grad():
            value = overload(node)(*args, **kwargs)
    if not isinstance(value, Tensor):
        raise TypeError(f"{node.name} is not a tensor")
    return value


def _draws(node: Node) -> bool:
    tags = overload(node).tags if is_aten_call(node) else []
    return torch.Tag.nondeterministic_seeded in tags
