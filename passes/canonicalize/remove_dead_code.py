"""Remove what no output depends on, and the tensors that nothing reads any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult


@dataclass(frozen=True)
class RemoveDeadCode(Pass):
    """``y = f(x); return x -> return x``; operators that write to a tensor stay."""

    name: ClassVar[str] = "remove-dead-code"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Erase dead nodes of every graph, outermost first."""
        graphs = list(all_graphs(module))
        before = sum(len(graph_module.graph.nodes) for _, graph_module in graphs)
        for _, graph_module in graphs:
            graph_module.graph.eliminate_dead_code()
            Editor(graph_module, self.name).drop_unused_attributes()
        removed = before - sum(len(graph_module.graph.nodes) for _, graph_module in graphs)
        return PassResult(stats={"removed": removed})
