"""Shared code of static native families, whose inputs and results are quantized tensors."""

from __future__ import annotations

import torch
from torch.fx import Node

from quantfx.backends.quantized.quantized_tensors import CARRYING, DEQUANTIZE, QUANTIZE
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_TENSOR, TensorQParams, tensor_qparams
from quantfx.patterns.schema import argument_value, resolve_op

CLAMP = resolve_op("aten.clamp.default")
_CONTIGUOUS = resolve_op("aten.contiguous.default")


def result_reason(candidate: Candidate) -> str | None:
    """Return why a static kernel cannot produce the result of ``candidate``; None if it can."""
    quantize = candidate.quantize
    if quantize is None:
        return f"its result {candidate.last_float.name} is not quantized"
    dtype = argument_value(quantize, "dtype")
    return None if dtype == torch.uint8 else f"its result is {dtype}, the kernel yields torch.uint8"


def unsigned_reason(*dequantizes: Node) -> str | None:
    """Return the dequantize that does not read a uint8 tensor with one scale; None if all do."""
    for node in dequantizes:
        if node.target is not DEQUANTIZE_PER_TENSOR:
            return f"{node.name} is no dequantize with one scale"
        dtype = argument_value(node, "dtype")
        if dtype != torch.uint8:
            return f"{node.name} reads {dtype}, the kernel takes torch.uint8"
    return None


def result_qparams(candidate: Candidate) -> TensorQParams:
    """Return the qparams of the result.

    Raises:
        TypeError: the result is not quantized.
    """
    if candidate.quantize is None:
        raise TypeError(f"the result of {candidate.anchor.name} is not quantized")
    return tensor_qparams(candidate.quantize)


def limit_quantized(
    call: Node, qparams: TensorQParams, editor: Editor, before: Node, channels_first: bool
) -> Node:
    """Return ``call`` clamped to the range of ``qparams``; kernels clamp to the dtype's only."""
    if qparams.limits is None:
        return call
    call = make_clampable(call, editor, before, channels_first)
    val = call.meta.get("val")
    return editor.call(CLAMP, (call, *value_bounds(qparams)), like=call, before=before, val=val)


def requantize(call: Node, qparams: TensorQParams, editor: Editor, before: Node) -> Node:
    """Return ``call``, which carries its own qparams, requantized to the graph's."""
    val = call.meta["val"]
    exact = val.to(torch.float32)
    value = editor.call(DEQUANTIZE, (call,), like=call, before=before, val=exact)
    args = (value, qparams.scale, qparams.zero_point, CARRYING[qparams.dtype])
    return editor.call(QUANTIZE, args, like=call, before=before, val=val)


def make_clampable(x: Node, editor: Editor, before: Node, channels_first: bool) -> Node:
    """Return ``x`` in the layout in which clamping is right.

    torch 2.13: when qnnpack clamps, as relu does too, it mistakes channels_last for channels first.
    """
    if not channels_first:
        return x
    return editor.call(_CONTIGUOUS, (x,), like=x, before=before, val=x.meta.get("val"))


def value_bounds(qparams: TensorQParams) -> tuple[float, float]:
    """Return the values of the smallest and the largest integer of ``qparams``."""
    low, high = qparams.quant_min - qparams.zero_point, qparams.quant_max - qparams.zero_point
    return qparams.scale * low, qparams.scale * high
