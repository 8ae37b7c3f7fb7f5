"""Remove torch.export's assertions about a tensor before each conversion."""

from __future__ import annotations

from quantfx.passes.export.size_asserts import ASSERT_TENSOR
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass


class RemoveAsserts(GraphPass):
    """``assert x is float32; y = x.float() -> y = x.float()``.

    The dtype at export may differ from the dtype at run time: under autocast the graph's linears
    return bfloat16, which such a conversion undoes.
    """

    name = "remove-asserts"
    counts = "removed"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Erase every assert of dtype, device or layout."""
        removed = 0
        for node in editor.graph.find_nodes(op="call_function", target=ASSERT_TENSOR):
            editor.erase(node)
            removed += 1
        return removed
