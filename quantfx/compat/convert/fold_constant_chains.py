"""Fold operators between a stored tensor and its quantize, so that the weight can be folded."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.constant_chain import constant_chain, constant_value
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.qdq import quantizes


class FoldConstantChains(GraphPass):
    """``q(t(weight)) -> q(weight_t)``, a constant.

    Only chains that end in a quantize are folded: other arithmetic on constants is the model's own.
    """

    name = "fold-constant-chains"
    counts = "edits"
    requires = frozenset({"qdq"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Fold in every graph."""
        written = overwritten(editor.graph)
        for node in list(editor.graph.nodes):
            if quantizes(node):
                _fold(editor, node, set(written))
        return editor.edits


def _fold(editor: Editor, quantize: Node, written: set[Node]) -> None:
    source = quantize.args[0]
    if not isinstance(source, Node) or source.op == "get_attr":
        return
    chain = constant_chain(source, written) or []
    stored = next((node for node in chain if node.op == "get_attr"), None)
    if stored is None:
        return
    value = constant_value(editor.module, source)
    constant = editor.constant(
        f"{stored.target}_{source.name}", value, like=stored, before=quantize
    )
    quantize.replace_input_with(source, constant)
    for node in chain:  # from the quantize backwards
        if not node.users:
            editor.erase(node)
