"""Bring the q/dq graph into the form for lowering: one dequantize per reader, nothing unused."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.qdq import DEQUANTIZE_DYNAMIC, dequantizes
from quantfx.patterns.schema import overload


@dataclass(frozen=True)
class Tidy(Pass):
    """Give each reader its own dequantize, and drop tensors that nothing reads.

    ``f(d), g(d) -> f(d), g(d')``: neither kernel can absorb a dequantize with two readers. A
    dequantize with a dynamic range stays single, as Inductor's kernels take it. The float originals
    of folded weights are dropped here.

    Attributes:
        dynamic: Whether to duplicate a dequantize with a dynamic range as well.
    """

    dynamic: bool = False

    name = "tidy"
    requires = frozenset({"qdq"})
    provides = frozenset({"tidy"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Duplicate, then drop."""
        duplicated = dropped = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for node in list(graph_module.graph.nodes):
                if dequantizes(node) and (self.dynamic or node.target is not DEQUANTIZE_DYNAMIC):
                    others = list(node.users)[1:]
                    for user in others:
                        copy = editor.call(
                            overload(node),
                            node.args,
                            kwargs=dict(node.kwargs),
                            like=node,
                            before=user,
                            val=node.meta.get("val"),
                        )
                        user.replace_input_with(node, copy)
                    duplicated += len(others)
            dropped += editor.drop_unused_attributes()
        return PassResult(stats={"duplicated": duplicated, "dropped": dropped})
