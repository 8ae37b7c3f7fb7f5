"""Make weights that control flow passes to a branch constants of the branch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.base import Context, Pass, PassResult
from quantfx.passes.editor import Editor
from quantfx.passes.graphs import all_graphs, attribute

_COND = torch.ops.higher_order.cond


@dataclass(frozen=True)
class SinkConstants(Pass):
    """``cond(p, f, g, (w, x)), f(w, x) -> cond(p, f, g, (x,)), f(x)`` with w stored in f and g.

    torch.export lifts the weights of a branch to operands; a weight that is an argument cannot be
    folded to int8.
    """

    name: ClassVar[str] = "sink-constants"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite each cond, outermost first, so that constants sink to where they are used."""
        count = 0
        for _, graph_module in all_graphs(module):
            for node in graph_module.graph.find_nodes(op="call_function", target=_COND):
                count += _sink(graph_module, node, self.name)
        return PassResult(count > 0, stats={"sunk": count})


def branches(module: GraphModule, cond: Node) -> Iterator[GraphModule]:
    """Yield the graph modules that the ``cond`` node chooses from."""
    for reference in cond.args[1:3]:
        branch = attribute(module, str(reference.target)) if isinstance(reference, Node) else None
        if isinstance(branch, GraphModule):
            yield branch


def _sink(module: GraphModule, cond: Node, by: str) -> int:
    operands: Any = cond.args[3]
    constant = {
        index: operand
        for index, operand in enumerate(operands)
        if operand.op == "get_attr" and isinstance(attribute(module, operand.target), Tensor)
    }
    if not constant or len({id(branch) for branch in branches(module, cond)}) < 2:
        return 0
    for branch in branches(module, cond):
        editor = Editor(branch, by)
        placeholders = branch.graph.find_nodes(op="placeholder")
        first = next(node for node in branch.graph.nodes if node.op != "placeholder")
        for index, operand in constant.items():
            value = attribute(module, operand.target)
            if not isinstance(value, Tensor):
                raise TypeError(f"{operand.target} is not a tensor")
            read = editor.constant(operand.target, value, like=operand, before=first)
            editor.replace(placeholders[index], read)
    kept = tuple(operand for index, operand in enumerate(operands) if index not in constant)
    cond.update_arg(3, kept)
    return len(constant)
