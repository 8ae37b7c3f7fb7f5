"""The nodes of a q/dq graph that may be part of a region."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.rules.anchors import PRODUCTS
from quantfx.backends.direct.rules.moves import MOVES
from quantfx.backends.direct.rules.operators import CASTS, rules
from quantfx.backends.direct.rules.pointwise import post_ops_of
from quantfx.backends.direct.rules.products import ATTENTION
from quantfx.backends.direct.rules.translate import VIEWS
from quantfx.passes.graph.editor import PROVENANCE_KEY
from quantfx.passes.lower.restore_layouts import RestoreLayouts
from quantfx.passes.pipeline.kernel_family import argument_node
from quantfx.passes.quant.qdq import (
    DEQUANTIZE_PER_CHANNEL,
    DEQUANTIZE_PER_TENSOR,
    QUANTIZE_PER_TENSOR,
    dtype_of,
)

_RULES = rules()
_INTEGERS = (torch.uint8, torch.int8)
# Operators that torch computes in float32 from bfloat16, or views; it rounds others at each step.
_LOOKS = VIEWS | MOVES  # they compute nothing
_TAKE_BFLOAT16 = frozenset({*VIEWS, *CASTS, QUANTIZE_PER_TENSOR})


def refusal(node: Node) -> str:
    """Return why ``node`` cannot be part of a region; empty if it may be."""
    if node.op != "call_function":
        return f"{node.op} is no operator"
    if node.meta.get(PROVENANCE_KEY) == RestoreLayouts.name:
        return "it lays memory out for a reader of strides"
    if node.target in (QUANTIZE_PER_TENSOR, DEQUANTIZE_PER_TENSOR, DEQUANTIZE_PER_CHANNEL):
        return _qdq_refusal(node)
    reason = _dtype_refusal(node)
    if reason:
        return reason
    if node.target in PRODUCTS:
        return _product_refusal(node)
    if node.target in _LOOKS:
        static = len(node.all_input_nodes) == 1
        return "" if static else "its sizes are computed"
    if post_ops_of(node) is not None or node.target in _RULES:
        return ""
    return f"no step computes {node.target}"


def is_int8_product(node: Node) -> bool:
    """Whether ``node`` is a convolution or linear of integers."""
    return node.target in PRODUCTS and not _product_refusal(node)


def _qdq_refusal(node: Node) -> str:
    if dtype_of(node) not in _INTEGERS:
        return f"its integers are {dtype_of(node)}"
    if node.target is not DEQUANTIZE_PER_CHANNEL and (reason := _dtype_refusal(node)):
        return reason
    if node.target is DEQUANTIZE_PER_CHANNEL:
        constant = argument_node(node, "input").op == "get_attr"
        return "" if constant else "it has a scale for each channel"
    if "out_dtype" in node.kwargs and node.kwargs["out_dtype"] not in (None, torch.float32):
        return f"it yields {node.kwargs['out_dtype']}"
    return ""


def _dtype_refusal(node: Node) -> str:
    for each in (node, *node.all_input_nodes):
        value = each.meta.get("val")
        if not isinstance(value, Tensor):
            return f"no step computes {node.target}: {each.name} is no tensor"
        masks = value.dtype == torch.bool and node.target is ATTENTION
        narrow = value.dtype == torch.bfloat16 and node.target in _TAKE_BFLOAT16
        if not (value.dtype == torch.float32 or value.dtype in _INTEGERS or masks or narrow):
            return f"{each.name} is {value.dtype}"
        if value.device.type != "cpu":
            return f"{each.name} is on {value.device}"
        if value.dim() > 6:
            return f"{each.name} has more than 6 dimensions"
    computes = node.target not in _LOOKS and node.target is not QUANTIZE_PER_TENSOR
    if not node.meta["val"].dtype.is_floating_point and computes:
        return f"{node.name} computes on integers"
    return ""


def _product_refusal(node: Node) -> str:
    if argument_node(node, "input").target is not DEQUANTIZE_PER_TENSOR:
        return "its input is not quantized with a stored scale"
    weight = argument_node(node, "weight")
    if weight.target not in (DEQUANTIZE_PER_CHANNEL, DEQUANTIZE_PER_TENSOR):
        return "its weight is not int8"
    if any(each.op != "get_attr" for each in weight.all_input_nodes):
        return "its weight is computed"
    return ""
