"""Replace affine weights that no kernel took, and that a compiler would get wrong, by floats."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value, overload


class ExpandAffineWeights(GraphPass):
    """``dequantize_per_channel(weight, scales, zero_points) -> float constant``, unless they are 0.

    Inductor's own patterns (torch 2.13) give such a weight to an int8 kernel and ignore its zero
    points. quantfx's own recipes make no such weights, and none of its kernels takes one.
    """

    name = "expand-affine-weights"
    counts = "expanded"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Expand every such constant."""
        count = 0
        dequantizes = editor.graph.find_nodes(op="call_function", target=DEQUANTIZE_PER_CHANNEL)
        for node in dequantizes:
            count += _expand(editor, node)
        editor.drop_unused_attributes()
        return count


def _expand(editor: Editor, node: Node) -> bool:
    constants: dict[Node, Tensor] = {}
    for source in node.all_input_nodes:
        value = editor.stored(source)
        if value is None:
            return False
        constants[source] = value
    zero_points = argument_value(node, "zero_points")
    if not isinstance(zero_points, Node) or not bool(constants[zero_points].any()):
        return False
    arguments = [
        constants.get(each, each) if isinstance(each, Node) else each for each in node.args
    ]
    with torch.no_grad():
        value = overload(node)(*arguments, **node.kwargs)
    name = f"{node.all_input_nodes[0].target}_expanded"
    editor.replace(node, editor.constant(name, value, before=node))
    return True
