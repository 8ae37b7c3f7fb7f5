"""Make quantized values carry their qparams, as torch's native kernels expect."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Node

from quantfx.backends.quantized.quantized_tensors import CARRYING, DEQUANTIZE, QUANTIZE
from quantfx.backends.quantized.static import CLAMP, make_clampable, value_bounds
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.kernel_family import argument_node
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_TENSOR, QUANTIZE_PER_TENSOR, tensor_qparams


@dataclass(frozen=True)
class CarryQParams(GraphPass):
    """``dq(q(x, s, z), s, z) -> dequantize(quantize_per_tensor(x, s, z))``.

    Dequantizes of stored integers, such as a weight, stay unchanged.

    Attributes:
        limits: Whether to clamp to integer ranges narrower than the dtype's.
        channels_first: Whether to lay values out channels first before clamping, for qnnpack.
    """

    limits: bool = True
    channels_first: bool = False

    name = "carry-qparams"
    requires = frozenset({"lowered"})
    keeps_float = False  # the two quantizes round some ties differently

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite every quantize, and the dequantizes of values that carry their qparams."""
        count = 0
        for node in list(editor.graph.nodes):
            if node.target is QUANTIZE_PER_TENSOR:
                self._quantize(editor, node)
            elif node.target is DEQUANTIZE_PER_TENSOR and node.args[0].op != "get_attr":
                node.target, node.args, node.kwargs = DEQUANTIZE, (node.args[0],), {}
            else:
                continue
            count += 1
        return count

    def _quantize(self, editor: Editor, node: Node) -> None:
        """Rewrite in place, so that the node keeps its name, by which its value is known."""
        qparams, x = tensor_qparams(node), argument_node(node, "input")
        args = (x, qparams.scale, qparams.zero_point, CARRYING[qparams.dtype])
        node.kwargs = {}
        if not self.limits or qparams.limits is None:
            node.target, node.args = QUANTIZE, args
            return
        whole = editor.call(QUANTIZE, args, before=node, val=node.meta.get("val"))
        whole = make_clampable(whole, editor, node, self.channels_first)
        node.target, node.args = CLAMP, (whole, *value_bounds(qparams))
