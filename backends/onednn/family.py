"""The kernel family ``onednn``: int8 convolutions and linears, and linears with fp16 weights.

``q(relu(conv2d(dq(x), dq(w), b))) -> qconv_pointwise(x, prepack(w), b, "relu")``: integers go in
and come out, and the kernel applies the result's scale and zero point. A residual sum stays a
separate operator; ``fuse_sums`` fuses it when the graph is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.onednn.conv_shape import ConvShape, narrow_padding, narrow_steps
from quantfx.backends.onednn.in_rows_of import in_rows_of
from quantfx.backends.onednn.limit_range import limit_range
from quantfx.backends.onednn.ops import (
    LINEAR_FP16,
    LINEAR_FP16_PREPACK,
    LINEAR_RELU_FP16,
    QCONV,
    QCONV_PREPACK,
    QLINEAR,
    QLINEAR_DYNAMIC,
    QLINEAR_PREPACK,
    register_fakes,
)
from quantfx.backends.onednn.overflow_reason import overflow_reason
from quantfx.backends.onednn.post_ops import FUSED_BY, NONE, PostOp, post_op
from quantfx.backends.onednn.weight_reason import half_weight_reason, weight_reason
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import (
    Candidate,
    Emission,
    KernelFamily,
    Saturation,
    argument_node,
)
from quantfx.passes.quant.qdq import (
    DEQUANTIZE_DYNAMIC,
    DEQUANTIZE_PER_CHANNEL,
    TensorQParams,
    tensor_qparams,
)
from quantfx.patterns.schema import argument_value, resolve_op
from quantfx.patterns.sizes import known_true

_TO = resolve_op("aten.to.dtype")
_ADDS = (resolve_op("aten.add.Tensor"), resolve_op("aten.add_.Tensor"))

_CONV = frozenset({"qconv_pointwise", "qconv2d_pointwise.binary"})
_LINEAR = frozenset({"qlinear_pointwise", "qlinear_pointwise.binary"})
_DYNAMIC = frozenset({"qlinear_pointwise.tensor", "qlinear_pointwise.binary_tensor"})
_FP16 = frozenset({"linear_dynamic_fp16", "linear_relu_dynamic_fp16"})
_FLOATS = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class OneDNN(KernelFamily):
    """oneDNN through torch's operators.

    Attributes:
        convolves: Activation dtypes that its convolutions take.
        not_here: Why the graphs cannot run on this machine; empty if they can.
    """

    convolves: tuple[torch.dtype, ...] = (torch.uint8,)
    not_here: str = ""

    name = "onednn"
    kernels = _CONV | _LINEAR | _DYNAMIC | _FP16

    @property
    def saturates(self) -> Saturation:
        """Sums of neighbours: without VNNI oneDNN adds them in 16 bits."""
        return "neighbours"

    def prepare(self) -> None:
        """Register the fake kernels that torch lacks."""
        register_fakes()

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return the first condition of the kernel that the candidate does not meet."""
        if candidate.kernel in _FP16:
            return candidate.indirect("weight") or _fp16_weight(candidate, editor)
        return (
            candidate.indirect("input", "weight")
            or self._activation(candidate)
            or weight_reason(candidate, editor)
            or overflow_reason(candidate)
            or _result(candidate)
            or _activation_function(candidate)
        )

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write prepack and kernel call."""
        if candidate.kernel in _FP16:
            return _fp16(candidate, editor)
        if candidate.kernel in _CONV:
            return _convolution(candidate, editor)
        return _linear(candidate, editor)

    def _activation(self, candidate: Candidate) -> str | None:
        dequantize, name = candidate.dequantize("input"), candidate.quantized("input").name
        dtype = argument_value(dequantize, "dtype")
        accepted = self.convolves if candidate.kernel in _CONV else (torch.uint8, torch.int8)
        if dequantize.target is DEQUANTIZE_PER_CHANNEL:
            return f"{name} has a scale for each channel, the kernel takes one"
        if dtype not in accepted:
            return f"{name} is {dtype}, the kernel takes {' or '.join(map(str, accepted))}"
        return None


def _result(candidate: Candidate) -> str | None:
    quantize = candidate.quantize
    if quantize is not None:
        dtype = argument_value(quantize, "dtype")
        return None if dtype in (torch.uint8, torch.int8) else f"its result is {dtype}"
    dtype = _float_dtype(candidate)
    return None if dtype in _FLOATS else f"its result is {dtype}, not float32 or bfloat16"


def _activation_function(candidate: Candidate) -> str | None:
    if _adds(candidate) or not candidate.behind:
        return None
    known = post_op(candidate.behind[0])
    kind = str(candidate.anchor.target).split(".")[1]
    if len(candidate.behind) > 1 or known is None or known.name not in FUSED_BY[kind]:
        behind = ", ".join(str(node.target) for node in candidate.behind)
        return f"the {kind} kernel does not fuse {behind}"
    return None


def _adds(candidate: Candidate) -> bool:
    """Whether the match continues with a sum, which the operator itself does not compute."""
    return any(node.target in _ADDS for node in candidate.behind[:1])


def _float_dtype(candidate: Candidate) -> torch.dtype:
    value = candidate.last_float.meta.get("val")
    dtype = value.dtype if isinstance(value, Tensor) else torch.float32
    return candidate.float_dtype or dtype if dtype == torch.float32 else dtype


@dataclass(frozen=True, kw_only=True)
class _Result:
    """The result of a kernel: activation, scale, zero point and dtype."""

    stands_for: Node
    post_op: PostOp
    scale: float = 1.0
    zero_point: int = 0
    dtype: torch.dtype = torch.float32
    qparams: TensorQParams | None = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments in the order of the operators."""
        name, scalars, algorithm = self.post_op
        return (self.scale, self.zero_point, self.dtype, name, list(scalars), algorithm)


def _result_of(candidate: Candidate) -> _Result:
    if _adds(candidate):
        # Its sum is rounded once, after the add, so the convolution's part stays exact.
        exact = candidate.kernel in _CONV
        dtype = torch.float32 if exact else _float_dtype(candidate)
        return _Result(stands_for=candidate.anchor, post_op=NONE, dtype=dtype)
    fused = post_op(*candidate.behind[:1]) or NONE
    quantize = candidate.quantize
    if quantize is None:
        return _Result(
            stands_for=candidate.match.output, post_op=fused, dtype=_float_dtype(candidate)
        )
    qparams = tensor_qparams(quantize)
    scale, zero_point, dtype = qparams.scale, qparams.zero_point, qparams.dtype
    return _Result(
        stands_for=quantize,
        post_op=fused,
        scale=scale,
        zero_point=zero_point,
        dtype=dtype,
        qparams=qparams,
    )


def _convolution(candidate: Candidate, editor: Editor) -> Emission:
    node, result = candidate.anchor, _result_of(candidate)
    before = result.stands_for
    scale, zero_point = candidate.dequantize("input").args[1:3]
    scales, zero_points = _weight_qparams(candidate, editor, before)
    shape = ConvShape(candidate, editor, before)
    x = shape.add_dimensions(candidate.quantized("input"))
    x, left = narrow_padding(x, zero_point, shape.geometry, editor, before)
    x, left = narrow_steps(x, left, shape.channels, editor, before)
    geometry = (list(left.stride), left.front, list(left.dilation), left.groups)
    packed = editor.call(
        QCONV_PREPACK,
        (shape.weight(), scales, scale, zero_point, *geometry, _static_shape(x)),
        like=node,
        before=before,
    )
    inputs = (x, scale, zero_point, packed, scales, zero_points, argument_value(node, "bias"))
    call = editor.call(QCONV, (*inputs, *geometry, *result.arguments), like=node, before=before)
    limited = limit_range(shape.drop_dimensions(call), result.qparams, editor, before)
    return Emission(limited, before, "qconv_pointwise")


def _linear(candidate: Candidate, editor: Editor) -> Emission:
    node, result = candidate.anchor, _result_of(candidate)
    before = result.stands_for
    dequantize = candidate.dequantize("input")
    dynamic = dequantize.target is DEQUANTIZE_DYNAMIC
    x = candidate.quantized("input")
    scales, zero_points = _weight_qparams(candidate, editor, before)
    packed = editor.call(
        QLINEAR_PREPACK, (_rows(candidate, editor), _static_rows(x)), like=node, before=before
    )
    scale, zero_point = dequantize.args[1:3]
    inputs = (x, scale, zero_point, packed, scales, zero_points, argument_value(node, "bias"))
    call = editor.call(
        QLINEAR_DYNAMIC if dynamic else QLINEAR,
        (*inputs, *result.arguments),
        like=node,
        before=before,
    )
    kernel = "qlinear_pointwise.tensor" if dynamic else "qlinear_pointwise"
    limited = limit_range(call, result.qparams, editor, before)
    return Emission(limited, before, kernel, takes_empty=_is_matrix(x))


def _fp16(candidate: Candidate, editor: Editor) -> Emission:
    node, before = candidate.anchor, candidate.last_float
    narrow = _rows(candidate, editor)
    # The operator packs from float32 and rounds to half precision, which changes nothing here.
    wide = editor.call(_TO, (narrow, torch.float32), like=narrow, before=before)
    x = argument_node(node, "input")
    packed = editor.call(LINEAR_FP16_PREPACK, (wide, _static_rows(x)), like=node, before=before)
    relu = bool(candidate.behind)
    call = editor.call(
        LINEAR_RELU_FP16 if relu else LINEAR_FP16,
        (x, packed, argument_value(node, "bias")),
        like=node,
        before=before,
    )
    # No rows in any call: the only empty case that the input contract allows.
    if any(known_true(size == 0) for size in x.meta["val"].shape):
        width = int(narrow.meta["val"].shape[0])
        call = in_rows_of(x, call, width=width, editor=editor, before=before)
    return Emission(call, before, candidate.kernel, takes_empty=_is_matrix(x))


def _rows(candidate: Candidate, editor: Editor) -> Node:
    """Return the weight with contiguous rows: torch 2.13 packs a transposed view wrongly."""
    weight = candidate.quantized("weight")
    value = editor.stored(weight)
    if value is None or value.is_contiguous():
        return weight
    return editor.changed_constant(weight, value.contiguous(), before=candidate.anchor)


def _is_matrix(x: Node) -> bool:
    """Whether the input is a matrix: for three dimensions the linear kernels return two (2.13)."""
    return bool(x.meta["val"].dim() <= 2)


def _fp16_weight(candidate: Candidate, editor: Editor) -> str | None:
    if [post_op(node) for node in candidate.behind] not in ([], [PostOp("relu")]):
        return f"the kernel does not fuse {candidate.behind[0].target}"
    return half_weight_reason(candidate, editor)


def _weight_qparams(candidate: Candidate, editor: Editor, before: Node) -> tuple[Node, Node]:
    """Return the tensors of scales and zero points, of one element for a weight with one scale.

    The zero points, all zero, are int32: Inductor would convert other dtypes, each with a warning.
    """
    dequantize, weight = candidate.dequantize("weight"), candidate.quantized("weight")
    if dequantize.target is DEQUANTIZE_PER_CHANNEL:
        scales = argument_node(dequantize, "scales")
    else:
        scale = torch.tensor([float(argument_value(dequantize, "scale"))])
        name = f"{weight.target}_scale"
        scales = editor.shared_constant(name, scale, like=weight, before=before)
    zeros = torch.zeros(scales.meta["val"].shape, dtype=torch.int32)
    name = f"{weight.target}_zero_point"
    return scales, editor.shared_constant(name, zeros, like=weight, before=before)


def _static_shape(x: Node) -> list[int] | None:
    """Return the shape that packing may be tuned for; None if a size is free."""
    shape = list(x.meta["val"].shape)
    return shape if all(isinstance(size, int) for size in shape) else None


def _static_rows(x: Node) -> list[int] | None:
    """Return the shape of ``x`` as a matrix; None if a size is free."""
    shape = _static_shape(x)
    if shape is None or 0 in shape:
        return None
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return [rows, shape[-1]]
