"""Share one dequantize among all readers that are not quantized."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL, DEQUANTIZE_PER_TENSOR


class MergeFloatReaders(GraphPass):
    """``f(dq(q)), g(dq'(q)) -> d = dq(q); f(d), g(d)`` where neither f nor g is annotated.

    Only an annotated reader has a kernel that absorbs its own dequantize.
    """

    name = "merge-float-readers"
    counts = "merged"
    requires = frozenset({"qdq"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Merge in every graph."""
        first: dict[object, Node] = {}
        for node in list(editor.graph.nodes):
            if node.target not in (DEQUANTIZE_PER_TENSOR, DEQUANTIZE_PER_CHANNEL):
                continue
            if any(is_annotated(user) for user in node.users):
                continue
            same = (node.target, node.args, tuple(node.kwargs.items()))
            if first.setdefault(same, node) is not node:
                editor.replace(node, first[same])
        return editor.edits


def is_annotated(node: Node) -> bool:
    """Whether a quantizer asked to quantize an input or the result of ``node``."""
    annotation: Any = node.meta.get(ANNOTATION_KEY)
    if annotation is None:
        return False
    return bool(annotation.input_qspec_map) or annotation.output_qspec is not None
