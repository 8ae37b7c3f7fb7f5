"""Declare the real layout of int8 convolutions where Inductor would assume another."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node

from quantfx.backends.inductor.opaque_kernels import channels_last_kernel
from quantfx.backends.onednn.ops import QCONV
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.kernel_family import argument_node


class DeclareLayouts(GraphPass):
    """``onednn.qconv_pointwise(x) -> quantfx.qconv_channels_last(x)`` where sizes are free.

    A kernel with a packed weight returns channels_last. If a size is free and the input is both
    channels_last and contiguous, as with one channel or one pixel, torch 2.13 declares a contiguous
    result (``_prepare_convolution_fusion_create``), and readers then read garbage. The operator
    here is the same call with the real layout. It is used only if the weight is a packed constant:
    other kernels stay hidden and keep their traced layout.
    """

    name = "declare-layouts"
    counts = "declared"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rename the calls of every graph whose result has a free size."""
        op = channels_last_kernel()
        count = 0
        for node in editor.graph.find_nodes(op="call_function", target=QCONV):
            if _is_free(node) and argument_node(node, "qw").op == "get_attr":
                node.target = op
                count += 1
        return count


def _is_free(node: Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, Tensor) or any(not isinstance(size, int) for size in value.shape)
