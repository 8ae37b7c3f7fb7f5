"""Remove dropout that is off, and so is the identity."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.dropouts import DROPOUTS, IN_PLACE_DROPOUTS, is_off
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import argument_value


class RemoveDropout(GraphPass):
    """``dropout(x, p, train=False) -> x``, also for p=0; other dropouts in train mode stay."""

    name = "remove-dropout"
    counts = "removed"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Replace each dropout that is off by its input."""
        removed = 0
        for target in (*DROPOUTS, *IN_PLACE_DROPOUTS):
            for node in editor.graph.find_nodes(op="call_function", target=target):
                source = argument_value(node, "input" if target in DROPOUTS else "self")
                if is_off(node) and isinstance(source, Node):
                    editor.replace(node, source)
                    removed += 1
        return removed
