"""Remove nodes that no output depends on, and tensors that nothing reads any more."""

from __future__ import annotations

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass


class RemoveDeadCode(GraphPass):
    """``y = f(x); return x -> return x``; operators that write to a tensor stay."""

    name = "remove-dead-code"
    counts = "removed"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Erase dead nodes."""
        before = len(editor.graph.nodes)
        editor.graph.eliminate_dead_code()
        editor.drop_unused_attributes()
        return before - len(editor.graph.nodes)
