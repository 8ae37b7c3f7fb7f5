"""The arguments of operators beside the input: weights, geometry, numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from quantfx.tools.fuzz.draft import Draft

Texts = dict[str, str]


@dataclass(frozen=True)
class Operator:
    """How to call an operator.

    Attributes:
        ranks: Numbers of dimensions of its input; empty for any.
        write: Returns the text of its other arguments, in which ``{x}`` is the name of its input.
        odd_ranks: Further numbers of dimensions that it takes and a template may not.
        source: Writes its input, if that is not any float tensor.
        results: Number of its results; later lines may read all of them.
        first_only: Whether it has further results, which nothing reads.
    """

    ranks: tuple[int, ...]
    write: Callable[[Draft, Tensor], Texts]
    odd_ranks: tuple[int, ...] = ()
    source: Callable[[Draft], str | None] | None = None
    results: int = 1
    first_only: bool = False


def _conv(dims: int) -> Operator:
    def write(draft: Draft, x: Tensor) -> Texts:
        draw = draft.choose
        channels = x.shape[-dims - 1]
        groups = draw.choice([1, 1, 1, channels, 2 if channels % 2 == 0 else 1])
        out = groups * draw.choice([1, 2, 4]) if groups > 1 else draw.choice([1, 4, 8, channels])
        kernel = [min(draw.choice([1, 2, 3, 3]), size) for size in x.shape[-dims:]]
        per_output = channels // groups
        scale = 1.0 / math.sqrt(per_output * math.prod(kernel))
        dtype = "" if x.dtype == torch.float32 else str(x.dtype)
        return {
            "weight": draft.parameter(out, per_output, *kernel, scale=scale, dtype=dtype),
            "bias": draft.parameter(out, scale=0.3, dtype=dtype) if draft.chance(0.7) else "None",
            "stride": str([draw.choice([1, 1, 2])] * dims),
            "padding": str([draw.choice([0, size // 2]) for size in kernel]),
            "dilation": str([draw.choice([1, 1, 1, 2])] * dims),
            "groups": str(groups),
        }

    return Operator((dims + 2,), write, (dims + 1,))


def _conv_transpose(dims: int) -> Operator:
    def write(draft: Draft, x: Tensor) -> Texts:
        draw = draft.choose
        channels = x.shape[-dims - 1]
        out = draw.choice([1, 2, 5])
        kernel = [draw.choice([1, 2, 3, 4]) for _ in range(dims)]
        stride = [draw.choice([1, 2, 3]) for _ in kernel]
        scale = 1.0 / math.sqrt(channels * math.prod(kernel))
        dtype = "" if x.dtype == torch.float32 else str(x.dtype)
        return {
            "weight": draft.parameter(channels, out, *kernel, scale=scale, dtype=dtype),
            "bias": draft.parameter(out, scale=0.3, dtype=dtype),
            "stride": str(stride),
            "padding": str([draw.choice([0, (size - 1) // 2]) for size in kernel]),
            "output_padding": str([draw.choice([0, each - 1]) for each in stride]),
            "groups": "1",
            "dilation": str([1] * dims),
        }

    return Operator((dims + 2,), write, (dims + 1,))


def _linear(draft: Draft, x: Tensor) -> Texts:
    out, columns = draft.choose.choice([1, 4, 8, x.shape[-1]]), x.shape[-1]
    dtype = "" if x.dtype == torch.float32 else str(x.dtype)
    return {
        "weight": draft.parameter(out, columns, scale=1.0 / math.sqrt(columns), dtype=dtype),
        "bias": draft.parameter(out, scale=0.3, dtype=dtype) if draft.chance(0.7) else "None",
    }


def _max_pool2d(draft: Draft, x: Tensor) -> Texts:
    kernel = min(draft.choose.choice([2, 3]), x.shape[-1], x.shape[-2])
    return {
        "kernel_size": str([kernel] * 2),
        "stride": str([draft.choose.choice([1, 2])] * 2),
        "padding": str([draft.choose.choice([0, kernel // 2])] * 2),
        "ceil_mode": str(draft.chance(0.3)),
    }


def _avg_pool2d(draft: Draft, x: Tensor) -> Texts:
    return _max_pool2d(draft, x) | {"count_include_pad": str(draft.chance(0.5))}


def _adaptive(draft: Draft, _: Tensor) -> Texts:
    return {"output_size": str([draft.choose.choice([1, 2])] * 2)}


def _flatten(draft: Draft, x: Tensor) -> Texts:
    return {"start_dim": str(1), "end_dim": str(draft.choose.choice([-1, x.dim() - 1]))}


def _cat(draft: Draft, x: Tensor) -> Texts:
    return {"dim": str(draft.choose.choice([1, 1, -1, x.dim() - 1]))}


def _hardtanh(draft: Draft, _: Tensor) -> Texts:
    least, most = draft.choose.choice([(-1.0, 1.0), (0.0, 6.0), (-0.5, 2.0)])
    return {"min_val": str(least), "max_val": str(most)}


def _leaky_relu(draft: Draft, _: Tensor) -> Texts:
    return {"negative_slope": str(draft.choose.choice([0.01, 0.3]))}


def _gelu(draft: Draft, _: Tensor) -> Texts:
    return {"approximate": repr(draft.choose.choice(["none", "tanh"]))}


def _nothing(draft: Draft, _: Tensor) -> Texts:
    return {}


def _attention(draft: Draft, x: Tensor) -> Texts:
    mask = draft.chance(0.4)
    length = x.shape[-2]
    return {
        "key": draft.choose.choice(["{x}", "{x}.tanh()", "{x}.flip(-2)"]),
        "value": draft.choose.choice(["{x}", "{x}.sigmoid()", "({x} * 0.5)"]),
        "attn_mask": f"torch.ones({length}, {length}).tril() > 0" if mask else "None",
        "is_causal": str(not mask and draft.chance(0.4)),
    }


_POINTWISE = Operator((), _nothing)
# Operators by their names in the vocabulary.
OPERATORS: dict[str, Operator] = {
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "conv3d": _conv(3),
    "conv_transpose1d": _conv_transpose(1),
    "conv_transpose2d": _conv_transpose(2),
    "conv_transpose3d": _conv_transpose(3),
    "linear": Operator((2, 2, 3, 4), _linear, (1,)),
    "matmul": Operator((2, 3), _nothing),
    "scaled_dot_product_attention": Operator((3, 4), _attention),
    "add": _POINTWISE,
    "mul": _POINTWISE,
    "max_pool2d": Operator((4,), _max_pool2d, (3,)),
    "avg_pool2d": Operator((4,), _avg_pool2d, (3,)),
    "adaptive_avg_pool2d": Operator((4,), _adaptive, (3,)),
    "cat": Operator((2, 4), _cat),
    "flatten": Operator((4,), _flatten, (3,)),
    "hardtanh": Operator((), _hardtanh),
    "leaky_relu": Operator((), _leaky_relu),
    "gelu": Operator((), _gelu),
    **dict.fromkeys(
        ("relu", "relu6", "hardswish", "silu", "tanh", "sigmoid", "hardsigmoid", "elu"), _POINTWISE
    ),
}
