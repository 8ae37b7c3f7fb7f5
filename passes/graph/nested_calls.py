"""Calls of nested graphs: which graphs a node runs, and on which operands.

torch.export keeps ``torch.cond`` and autocast regions as calls of graph modules. A region always
runs its one graph; a cond chooses one of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import referent

_COND = torch.ops.higher_order.cond
_AUTOCAST = torch.ops.higher_order.wrap_with_autocast
_FIRST_AUTOCAST_OPERAND = 5  # after device, dtype, enabled, cache_enabled and the graph


@dataclass(frozen=True)
class NestedCall:
    """A node that runs nested graphs.

    Attributes:
        node: The call.
        graphs: The graphs that it may run; each takes all operands as its placeholders.
        operands: Nodes or plain values.
    """

    node: Node
    graphs: tuple[GraphModule, ...]
    operands: tuple[Any, ...]

    @property
    def is_choice(self) -> bool:
        """Whether it runs one of several graphs."""
        return self.node.target is _COND

    def keep(self, operands: tuple[Any, ...]) -> None:
        """Pass these operands instead; the graphs must have a placeholder for each already."""
        if self.node.target is _COND:
            self.node.update_arg(3, operands)
        else:
            self.node.args = (*self.node.args[:_FIRST_AUTOCAST_OPERAND], *operands)


def nested_calls(module: GraphModule) -> Iterator[NestedCall]:
    """Yield the calls of conds and autocast regions in ``module``'s own graph.

    Loops are omitted: a carried value is a different tensor in every iteration.
    """
    for node in module.graph.find_nodes(op="call_function", target=_COND):
        operands: Any = node.args[3]
        yield NestedCall(node, _graphs(module, node.args[1:3]), tuple(operands))
    for node in module.graph.find_nodes(op="call_function", target=_AUTOCAST):
        operands = node.args[_FIRST_AUTOCAST_OPERAND:]
        yield NestedCall(node, _graphs(module, node.args[4:5]), operands)


def autocast_dtype(node: Node) -> torch.dtype | None:
    """Return the dtype of a node's autocast region; None unless it is an enabled CPU region."""
    if node.target is not _AUTOCAST:
        return None
    device, dtype, enabled = node.args[:3]
    on_cpu = device == "cpu" and enabled
    return dtype if on_cpu and isinstance(dtype, torch.dtype) else None


def _graphs(module: GraphModule, references: tuple[Any, ...]) -> tuple[GraphModule, ...]:
    values = (referent(module, reference) for reference in references)
    return tuple(value for value in values if isinstance(value, GraphModule))
