"""The kernel family ``int8pack``: float activations times int8 weights.

``linear(x, dq(w), b) -> _weight_int8pack_mm(x, w, scales) + b``. The kernel multiplies each float
row with the int8 weights, sums, and scales the sum per output channel: ``y_n = s_n * sum_k x_k
w_nk``. It takes two dimensions, so x is reshaped around it. It comes after quantfx's own kernels,
for code that must run without quantfx.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from quantfx.backends.onednn.in_rows_of import in_rows_of
from quantfx.backends.onednn.weight_reason import weight_reason
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily, argument_node
from quantfx.passes.quant.qdq import DEQUANTIZE_GROUPS, DEQUANTIZE_PER_CHANNEL, dequantizes
from quantfx.patterns.schema import argument_value, resolve_op

KERNEL = "_weight_int8pack_mm"
_MATMUL = resolve_op(f"aten.{KERNEL}.default")
_CONTIGUOUS = resolve_op("aten.contiguous.default")
_RESHAPE = resolve_op("aten.reshape.default")
_ADD = resolve_op("aten.add.Tensor")
_TYPE_AS = resolve_op("aten.type_as.default")
_SLICE = resolve_op("aten.slice.Tensor")
_FEWEST_CHANNELS = 9


@dataclass(frozen=True)
class Int8Pack(KernelFamily):
    """torch's kernel for linears with only the weight in int8."""

    name = "int8pack"
    kernels = frozenset({"weight_linear"})

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return what the kernel does not support: zero points, or scales that are not per row."""
        if reason := candidate.indirect("weight"):
            return reason
        dequantize = candidate.dequantize("weight")
        if dequantizes(argument_node(candidate.anchor, "input")):
            return "its input is quantized too"
        if dequantize.target is DEQUANTIZE_GROUPS:
            weight = candidate.quantized("weight").name
            return f"{weight} has a scale for each group, the kernel takes one per row"
        if dequantize.target is not DEQUANTIZE_PER_CHANNEL:
            return f"{candidate.quantized('weight').name} does not have one scale per row"
        return weight_reason(candidate, editor)

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the product, with the reshapes and the bias around it."""
        node = candidate.anchor
        x, bias = argument_node(node, "input"), argument_value(node, "bias")
        integers, scales, channels = _pad_channels(editor, node, candidate.dequantize("weight"))
        width = node.meta["val"].shape[-1]
        x = editor.call(_CONTIGUOUS, (x,), before=node)  # the kernel needs contiguous rows
        rows = editor.call(_RESHAPE, (x, [-1, x.meta["val"].shape[-1]]), before=node)
        # Under autocast x may be bfloat16, and the kernel needs scales of x's dtype.
        alike = editor.call(_TYPE_AS, (scales, rows), before=node)
        product = editor.call(_MATMUL, (rows, integers, alike), before=node)
        if channels != width:
            product = editor.call(_SLICE, (product, 1, 0, width), before=node)
        result = in_rows_of(x, product, width=width, editor=editor, before=node)
        if bias is not None:
            result = editor.call(_ADD, (result, bias), before=node)
        return Emission(result, node, KERNEL)


def _pad_channels(editor: Editor, node: Node, dequantize: Node) -> tuple[Node, Node, int]:
    """Return int8 weights and scales, with zeros added to very few channels, and their number.

    torch 2.13: Inductor writes vectors of up to 8 constants into its loops, and then fails to pass
    them to this kernel.
    """
    sources = argument_node(dequantize, "input"), argument_node(dequantize, "scales")
    values = [editor.stored(each) for each in sources]
    channels = len(values[1]) if values[1] is not None else _FEWEST_CHANNELS
    missing = _FEWEST_CHANNELS - channels
    if missing <= 0:
        return *sources, channels
    padded = [
        editor.constant(
            f"{source.target}_padded",
            torch.cat([value, value.new_zeros(missing, *value.shape[1:])]),
            like=source,
            before=node,
        )
        for source, value in zip(sources, values, strict=True)
        if value is not None
    ]
    return padded[0], padded[1], _FEWEST_CHANNELS
