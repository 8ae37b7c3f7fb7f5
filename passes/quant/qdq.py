"""The quantize and dequantize operators, ``torch.ops.quantized_decomposed.*``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload
from torch.fx import Node

from quantfx.patterns.schema import argument_value, resolve_op

QUANTIZE_PER_TENSOR = resolve_op("quantized_decomposed.quantize_per_tensor.default")
DEQUANTIZE_PER_TENSOR = resolve_op("quantized_decomposed.dequantize_per_tensor.default")
QUANTIZE_PER_CHANNEL = resolve_op("quantized_decomposed.quantize_per_channel.default")
DEQUANTIZE_PER_CHANNEL = resolve_op("quantized_decomposed.dequantize_per_channel.default")
# With a scale per group of values of a row: scales and zero points are (channels, groups).
QUANTIZE_GROUPS = resolve_op("quantized_decomposed.quantize_per_channel_group.default")
DEQUANTIZE_GROUPS = resolve_op("quantized_decomposed.dequantize_per_channel_group.default")

# With scale and zero point as tensors, found in the tensor to quantize.
QUANTIZE_DYNAMIC = resolve_op("quantized_decomposed.quantize_per_tensor.tensor")
DEQUANTIZE_DYNAMIC = resolve_op("quantized_decomposed.dequantize_per_tensor.tensor")
CHOOSE_QPARAMS = resolve_op("quantized_decomposed.choose_qparams.tensor")
CHOOSE_QPARAMS_SYMMETRIC = resolve_op("quantized_decomposed.choose_qparams_symmetric.tensor")

# A change of dtype that compilers must not cancel against its opposite.
CAST = resolve_op("quantized_decomposed.convert_element_type.no_fuse")

_CHOOSE = {CHOOSE_QPARAMS, CHOOSE_QPARAMS_SYMMETRIC}
_QUANTIZE = {QUANTIZE_PER_TENSOR, QUANTIZE_PER_CHANNEL, QUANTIZE_GROUPS, QUANTIZE_DYNAMIC}
_DEQUANTIZE = {DEQUANTIZE_PER_TENSOR, DEQUANTIZE_PER_CHANNEL, DEQUANTIZE_GROUPS, DEQUANTIZE_DYNAMIC}


def choose_qparams_op(symmetric: bool) -> OpOverload[..., Any]:
    """Return the operator that finds scale and zero point in the tensor itself."""
    return CHOOSE_QPARAMS_SYMMETRIC if symmetric else CHOOSE_QPARAMS


def finds_range(node: Node) -> bool:
    """Whether ``node`` finds scale and zero point in the tensor itself."""
    return node.op == "call_function" and node.target in _CHOOSE


def quantizes(node: Node) -> bool:
    """Whether ``node`` is a quantize operator."""
    return node.op == "call_function" and node.target in _QUANTIZE


def dequantizes(node: Node) -> bool:
    """Whether ``node`` is a dequantize operator."""
    return node.op == "call_function" and node.target in _DEQUANTIZE


def reads_quantized(node: Node) -> bool:
    """Whether ``node``'s readers get values that an annotation asked for: a dq or a cast."""
    return dequantizes(node) or node.target is CAST


def has_qparams(node: Node) -> bool:
    """Whether ``node`` quantizes or dequantizes."""
    return quantizes(node) or dequantizes(node)


def qparams_of(node: Node) -> tuple[Any, ...]:
    """Return a q or dq node's arguments after the tensor: scale, zero point, range, dtype.

    Per-channel scales and zero points are the get_attr nodes that hold them. The output dtype of a
    dequantize is omitted.
    """
    return tuple(node.args[1:7] if node.target is DEQUANTIZE_GROUPS else node.args[1:])


def dtype_of(node: Node) -> torch.dtype:
    """Return the integer dtype of a q or dq node."""
    by_groups = node.target in (QUANTIZE_GROUPS, DEQUANTIZE_GROUPS)
    dtype = argument_value(node, "dtype") if by_groups else node.args[-1]
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{node.name} is not a q or dq node in canonical spelling")
    return dtype


class TensorQParams(NamedTuple):
    """The arguments of a static per-tensor quantize or dequantize after the tensor."""

    scale: float
    zero_point: int
    quant_min: int
    quant_max: int
    dtype: torch.dtype

    @property
    def limits(self) -> tuple[int, int] | None:
        """The integer range; None unless it is narrower than the dtype's."""
        given = self.quant_min, self.quant_max
        info = torch.iinfo(self.dtype)
        return None if given == (info.min, info.max) else given


def tensor_qparams(node: Node) -> TensorQParams:
    """Return the qparams of a static per-tensor q or dq node."""
    return TensorQParams(*(argument_value(node, name) for name in TensorQParams._fields))
