"""Tell Inductor the layout that int8 convolutions really return where it would guess another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import Node

from quantfx.backends.inductor.opaque_kernels import channels_last_kernel
from quantfx.backends.onednn.ops import QCONV
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.kernel_family import argument_node


@dataclass(frozen=True)
class DeclareLayouts(GraphPass):
    """``onednn.qconv_pointwise(x) -> quantfx.qconv_channels_last(x)`` where sizes are free.

    A kernel with a packed weight returns channels_last. torch 2.13 declares a contiguous result
    where a size is free and the input is both, as with one channel or one pixel
    (``_prepare_convolution_fusion_create``), and whatever reads the result then reads noise. Our
    operator is the same call with the layout it has. Only where the weight is a packed constant:
    elsewhere the kernels stay hidden and keep the layout they are traced with.
    """

    name: ClassVar[str] = "declare-layouts"
    counts: ClassVar[str] = "declared"

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
