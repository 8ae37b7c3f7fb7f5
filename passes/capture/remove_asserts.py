"""Remove what torch.export asserts of a tensor in front of each conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.graph.asserts import ASSERT
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass


@dataclass(frozen=True)
class RemoveAsserts(GraphPass):
    """``assert x is float32; y = x.float() -> y = x.float()``.

    The dtype that was seen at export need not be that of later: under autocast the graph's linears
    return bfloat16, which such a conversion is there to undo.
    """

    name: ClassVar[str] = "remove-asserts"
    counts: ClassVar[str] = "removed"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Erase every assert of dtype, device or layout."""
        removed = 0
        for node in editor.graph.find_nodes(op="call_function", target=ASSERT):
            editor.erase(node)
            removed += 1
        return removed
