"""Remove copies of a tensor onto itself, which torch.export leaves after an in-place operator."""

from __future__ import annotations

import torch
from torch.fx import Node

from quantfx.passes.graph.aliasing import views_of, writes_to
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass

_COPY = torch.ops.aten.copy_.default


class RemoveSelfCopies(GraphPass):
    """``y = n.add_(1); n.copy_(y) -> y = n.add_(1)``, where n is a buffer.

    Nothing is copied, but autograd counts the copy as a change of what y's readers have saved.
    """

    name = "remove-self-copies"
    counts = "removed"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Remove each copy of a tensor onto itself."""
        removed = 0
        for node in editor.graph.find_nodes(op="call_function", target=_COPY):
            target, source = node.args[:2]
            if isinstance(target, Node) and _trace_written(source) is target:
                editor.replace(node, target)
                removed += 1
        return removed


def _trace_written(node: object) -> object:
    """Return the tensor that ``node`` is, through operators that return what they wrote to."""
    while isinstance(node, Node) and len(writes_to(node)) == 1 == len(views_of(node)):
        node = writes_to(node)[0]
    return node
