"""Quantize constant weights now, so that the graph holds int8 instead of float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.base import Context, Pass, PassResult
from quantfx.passes.editor import Editor
from quantfx.passes.graphs import all_graphs, attribute
from quantfx.passes.qdq import QUANTIZE_PER_CHANNEL, QUANTIZE_PER_TENSOR, dtype_of
from quantfx.patterns.schema import overload


@dataclass(frozen=True)
class FoldWeights(Pass):
    """``q(weight) -> weight_s8``, a constant."""

    name: ClassVar[str] = "fold-weights"
    requires: ClassVar[frozenset[str]] = frozenset({"qdq"})
    provides: ClassVar[frozenset[str]] = frozenset({"weights-folded"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Fold each quantize whose tensor is a parameter or buffer."""
        folded = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for target in (QUANTIZE_PER_CHANNEL, QUANTIZE_PER_TENSOR):
                for node in graph_module.graph.find_nodes(op="call_function", target=target):
                    source = node.args[0]
                    if isinstance(source, Node) and source.op == "get_attr":
                        _fold(editor, node, source)
                        folded += 1
        return PassResult(folded > 0, stats={"folded": folded})


def _fold(editor: Editor, node: Node, source: Node) -> None:
    def value(argument: Node) -> Any:
        return attribute(editor.module, str(argument.target))

    with torch.no_grad():
        integers = overload(node)(*map_arg(node.args, value))
    if not isinstance(integers, Tensor):
        raise TypeError(f"{node.name} does not yield a tensor")
    suffix = "u8" if dtype_of(node) == torch.uint8 else "s8"
    constant = editor.constant(f"{source.target}_{suffix}", integers, like=source, before=node)
    constant.meta["val"] = node.meta.get("val")
    editor.replace(node, constant)
