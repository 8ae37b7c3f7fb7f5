"""The base of most passes: one rewrite of one graph, without bookkeeping."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch.fx import GraphModule

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.facts import TRAINABLE, facts_of
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.remark import AnyRemark
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.check_pass import checked_count


class GraphPass(Pass):
    """A pass that rewrites each graph separately: the top graph and every nested graph.

    Attributes:
        counts: What ``rewrite`` counts; the name of the sum in the record of the pass.
        in_training: Whether it also rewrites a graph that trains.
    """

    counts: ClassVar[str] = "rewritten"
    in_training: ClassVar[bool] = True

    @abstractmethod
    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite the graph of ``editor``, which also takes remarks; return how many rewrites."""

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite every graph, outermost first."""
        if not self.in_training and TRAINABLE in facts_of(module):
            return PassResult()
        count = 0
        remarks: list[AnyRemark] = []
        for path, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name, path)
            count += checked_count(self.name, self.rewrite(editor, context))
            remarks += editor.remarks
        return PassResult(tuple(remarks), {self.counts: count})
