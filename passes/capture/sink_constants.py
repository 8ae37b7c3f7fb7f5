"""Turn weights that control flow passes to a branch into constants of the branch."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import constant
from quantfx.passes.graph.nested_calls import NestedCall, nested_calls
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass


class SinkConstants(GraphPass):
    """``cond(p, f, g, (w, x)), f(w, x) -> cond(p, f, g, (x,)), f(x)`` with w stored in f and g.

    torch.export lifts the weights of a branch or autocast region to operands; a weight that is an
    operand cannot be folded to int8.
    """

    name = "sink-constants"
    counts = "sunk"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite each call, outermost first, so that constants sink to where they are used."""
        calls = list(nested_calls(editor.module))
        return sum(_sink(editor.module, call, self.name) for call in calls)


def _sink(module: GraphModule, call: NestedCall, by: str) -> int:
    stored = {
        index: (operand, value)
        for index, operand in enumerate(call.operands)
        if isinstance(operand, Node) and (value := constant(module, operand)) is not None
    }
    # Skip a cond with one graph for both branches: its operands would be rewritten twice.
    if not stored or len({id(graph) for graph in call.graphs}) < len(call.graphs):
        return 0
    for branch in call.graphs:
        editor = Editor(branch, by)
        placeholders = branch.graph.find_nodes(op="placeholder")
        first = next(node for node in branch.graph.nodes if node.op != "placeholder")
        for index, (operand, value) in stored.items():
            read = editor.constant(str(operand.target), value, like=operand, before=first)
            editor.replace(placeholders[index], read)
    call.keep(tuple(each for index, each in enumerate(call.operands) if index not in stored))
    return len(stored)
