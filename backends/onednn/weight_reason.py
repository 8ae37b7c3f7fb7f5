"""The requirements of weights, int8 or in half precision, for all kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, argument_node
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value


def weight_reason(candidate: Candidate, editor: Editor) -> str | None:
    """Return why kernels do not take the candidate's weight, as a sentence; None if they do.

    Kernels take int8 weights with one scale per output channel or one scale, without zero points.
    """
    dequantize, name = candidate.dequantize("weight"), candidate.quantized("weight").name
    dtype = argument_value(dequantize, "dtype")
    if dtype != torch.int8:
        return f"{name} is {dtype}, the kernel takes torch.int8"
    if dequantize.target is not DEQUANTIZE_PER_CHANNEL:
        zero_point = argument_value(dequantize, "zero_point")
        return f"{name} has zero point {zero_point}, the kernel knows none" if zero_point else None
    if argument_value(dequantize, "axis") != 0:
        return f"{name} has its scales along axis {argument_value(dequantize, 'axis')}, not 0"
    zero_points = editor.stored(argument_value(dequantize, "zero_points"))
    if zero_points is None or editor.stored(argument_value(dequantize, "scales")) is None:
        return f"the scales or zero points of {name} are computed, not stored"
    return f"{name} has zero points, the kernel knows none" if bool(zero_points.any()) else None


def half_weight_reason(candidate: Candidate, editor: Editor) -> str | None:
    """Return why the kernels do not take the weight or the input, as a sentence."""
    value = editor.stored(candidate.quantized("weight"))
    x = argument_node(candidate.anchor, "input").meta.get("val")
    if value is None or value.dtype != torch.float16:
        return f"{candidate.quantized('weight').name} is not stored in half precision"
    if isinstance(x, Tensor) and x.dtype != torch.float32:
        return f"its input is {x.dtype}, the kernel takes torch.float32"
    return None
