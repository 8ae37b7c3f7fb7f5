"""Store cast weights wide again, with the whole cast in the graph, as Inductor's pattern wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs, attribute
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.qdq import CAST, dtype_of


@dataclass(frozen=True)
class WidenCasts(Pass):
    """``cast(w_f16, f32) -> cast(cast(w_f32, f16), f32)``, for Inductor only.

    torch 2.13 turns a linear whose weight goes through both casts into
    ``onednn.linear_dynamic_fp16``; it packs the weight in half precision when it freezes.
    """

    name: ClassVar[str] = "widen-casts"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Widen every constant that is cast."""
        widened = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for node in graph_module.graph.find_nodes(op="call_function", target=CAST):
                source = node.args[0]
                if isinstance(source, Node) and source.op == "get_attr":
                    _widen(editor, node, source)
                    widened += 1
            editor.drop_unused_attributes()
        return PassResult(widened > 0, stats={"widened": widened})


def _widen(editor: Editor, node: Node, source: Node) -> None:
    value = attribute(editor.module, str(source.target))
    if not isinstance(value, Tensor):
        raise TypeError(f"{source.name} is not a tensor")
    wide = value.to(dtype_of(node))
    constant = editor.constant(f"{source.target}_wide", wide, like=source, before=node)
    narrow = editor.call(
        CAST, (constant, value.dtype), like=source, before=node, val=source.meta.get("val")
    )
    node.args = (narrow, *node.args[1:])
