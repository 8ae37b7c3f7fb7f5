"""One dequantize for all readers that are not quantized themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL, DEQUANTIZE_PER_TENSOR


@dataclass(frozen=True)
class MergeFloatReaders(Pass):
    """``f(dq(q)), g(dq'(q)) -> d = dq(q); f(d), g(d)`` where neither f nor g is annotated.

    Only an annotated reader has a kernel to absorb a dequantize of its own.
    """

    name: ClassVar[str] = "merge-float-readers"
    requires: ClassVar[frozenset[str]] = frozenset({"qdq"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Merge in every graph."""
        edits = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            first: dict[object, Node] = {}
            for node in list(graph_module.graph.nodes):
                if node.target not in (DEQUANTIZE_PER_TENSOR, DEQUANTIZE_PER_CHANNEL):
                    continue
                if any(is_annotated(user) for user in node.users):
                    continue
                same = (node.target, node.args, tuple(node.kwargs.items()))
                if first.setdefault(same, node) is not node:
                    editor.replace(node, first[same])
            edits += editor.edits
        return PassResult(stats={"merged": edits})


def is_annotated(node: Node) -> bool:
    """Whether a quantizer asked for any of what ``node`` reads or yields to be quantized."""
    annotation: Any = node.meta.get(ANNOTATION_KEY)
    if annotation is None:
        return False
    return bool(annotation.input_qspec_map) or annotation.output_qspec is not None
