"""Remove copies of a tensor onto itself, which torch.export leaves behind an in-place operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.graph.aliasing import views_of, writes_to
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult

_COPY = torch.ops.aten.copy_.default


@dataclass(frozen=True)
class RemoveSelfCopies(Pass):
    """``y = n.add_(1); n.copy_(y) -> y = n.add_(1)``, where n is a buffer.

    Nothing is copied there, but autograd counts it as a change of what y's readers have saved.
    """

    name: ClassVar[str] = "remove-self-copies"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Remove each copy of the very tensor that it writes to."""
        removed = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for node in graph_module.graph.find_nodes(op="call_function", target=_COPY):
                target, source = node.args[:2]
                if isinstance(target, Node) and _written(source) is target:
                    editor.replace(node, target)
                    removed += 1
        return PassResult(stats={"removed": removed})


def _written(node: object) -> object:
    """Return the tensor that ``node`` is, by way of operators that return what they wrote to."""
    while isinstance(node, Node) and len(writes_to(node)) == 1 == len(views_of(node)):
        node = writes_to(node)[0]
    return node
