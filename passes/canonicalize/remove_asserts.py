"""Remove what torch.export asserts of a tensor in front of each conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from quantfx.passes.graph.asserts import ASSERT
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult


@dataclass(frozen=True)
class RemoveAsserts(Pass):
    """``assert x is float32; y = x.float() -> y = x.float()``.

    The dtype that was seen at export need not be that of later: under autocast the graph's linears
    return bfloat16, which such a conversion is there to undo.
    """

    name: ClassVar[str] = "remove-asserts"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Erase every assert of dtype, device or layout."""
        removed = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for node in graph_module.graph.find_nodes(op="call_function", target=ASSERT):
                editor.erase(node)
                removed += 1
        return PassResult(stats={"removed": removed})
