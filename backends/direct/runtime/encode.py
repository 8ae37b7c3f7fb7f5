"""Encode steps as structures of the C interface."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from quantfx.backends.direct.runtime import interface
from quantfx.backends.direct.runtime.arena import Arena
from quantfx.backends.direct.runtime.interface import (
    CAttention,
    CConvolution,
    CEpilogue,
    CFill,
    CInterpolate,
    CLayerNorm,
    CLookup,
    CMatMul,
    CPointwise,
    CPool,
    CPostOp,
    CSoftmax,
    CTensor,
)
from quantfx.backends.direct.runtime.steps import (
    Accumulate,
    Attention,
    Convolution,
    Fill,
    Interpolate,
    LayerNorm,
    Lookup,
    MatMul,
    Pointwise,
    Pool,
    PostOp,
    Softmax,
    Step,
)
from quantfx.backends.direct.runtime.values import Buffer, Value, layout_of


class Encoder:
    """Encodes steps whose buffers lie in an arena.

    ``kept`` holds what structures point at until the library has read them.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.kept: list[object] = []

    def encode(self, step: Step) -> tuple[str, ctypes.Structure]:
        """Return the name of the library's function for a step, and its argument."""
        name, encode = _ENCODERS[type(step)]
        return name, encode(self, step)

    def convolution(self, step: Convolution) -> CConvolution:
        """Encode a convolution."""
        made = CConvolution(
            weight=self._constant(step.weight),
            spatial=len(step.stride),
            groups=step.groups,
            strides=_three(step.stride),
            dilations=_three(step.dilation),
            padding_low=_three(step.padding_low),
            padding_high=_three(step.padding_high),
        )
        self._accumulate(step, made)
        return made

    def matmul(self, step: MatMul) -> CMatMul:
        """Encode a matrix product; with a packed weight the source is flattened to rows."""
        made = CMatMul(constant_weight=step.packs)
        self._accumulate(step, made)
        constant = step.constant
        if constant is None:
            made.weight = self._tensor(step.weight)
            return made
        made.weight = self._constant(constant.t())
        made.source = _as_rows(made.source)
        made.result = _as_rows(made.result)
        return made

    def pointwise(self, step: Pointwise) -> CPointwise:
        """Encode a pointwise step."""
        made = CPointwise(
            kind=interface.COMBINES[step.combine],
            a=self._tensor(step.source),
            result=self._tensor(step.result),
            epilogue=self._epilogue(step),
        )
        if step.other is not None:
            made.b = self._tensor(step.other)
        return made

    def lookup(self, step: Lookup) -> CLookup:
        """Encode a lookup or copy."""
        source, result = self._tensor(step.source), self._tensor(step.result)
        self.kept.append(step.table)
        return CLookup(source=source, result=result, table=step.table)

    def fill(self, step: Fill) -> CFill:
        """Encode a fill."""
        return CFill(result=self._tensor(step.result), value=step.value)

    def pool(self, step: Pool) -> CPool:
        """Encode a pool."""
        return CPool(
            kind=int(step.average),
            spatial=len(step.window),
            counts_padding=step.counts_padding,
            source=self._tensor(step.source),
            result=self._tensor(step.result),
            kernel=_three(step.window),
            strides=_three(step.stride),
            dilations=_three(step.dilation),
            padding=_three(step.padding),
            divisor=step.divisor,
            epilogue=self._epilogue(step),
        )

    def interpolate(self, step: Interpolate) -> CInterpolate:
        """Encode an interpolation."""
        made = CInterpolate(
            spatial=len(step.tables),
            source=self._tensor(step.source),
            result=self._tensor(step.result),
            epilogue=self._epilogue(step),
        )
        for axis, table in enumerate(step.tables):
            made.tables[axis] = self._constant(table)
        return made

    def layer_norm(self, step: LayerNorm) -> CLayerNorm:
        """Encode a layer norm."""
        made = CLayerNorm(
            source=self._tensor(step.source),
            result=self._tensor(step.result),
            has_weight=step.weight is not None,
            has_bias=step.bias is not None,
            centered=step.centered,
            epsilon=step.epsilon,
            epilogue=self._epilogue(step),
        )
        if step.weight is not None:
            made.weight = self._constant(step.weight)
        if step.bias is not None:
            made.bias = self._constant(step.bias)
        return made

    def softmax(self, step: Softmax) -> CSoftmax:
        """Encode a softmax."""
        return CSoftmax(
            source=self._tensor(step.source),
            result=self._tensor(step.result),
            causal=step.causal,
            empty_is_zero=step.empty_is_zero,
            epilogue=self._epilogue(step),
        )

    def attention(self, step: Attention) -> CAttention:
        """Encode an attention."""
        scale, zero_point, low, high = step.weights
        made = CAttention(
            query=self._tensor(step.source),
            key=self._tensor(step.key),
            value=self._tensor(step.value),
            result=self._tensor(step.result),
            empty_is_zero=step.empty_is_zero,
            weight_scale=scale,
            weight_zero_point=zero_point,
            weight_low=low,
            weight_high=high,
            scores=_epilogue(step.scores),
            epilogue=self._epilogue(step),
        )
        masks = [each for each in (step.mask, step.second_mask) if each is not None]
        made.mask_count = len(masks)
        for index, mask in enumerate(masks):
            made.masks[index] = self._tensor(mask)
        return made

    def _accumulate(self, step: Accumulate, made: Any) -> None:
        made.source, made.result = self._tensor(step.source), self._tensor(step.result)
        made.implementation, made.threads = step.implementation, step.threads
        made.epilogue = self._epilogue(step)
        if step.bias is not None:
            made.has_bias = 1
            made.bias = self._constant(step.bias.contiguous())
        if step.scales is not None:
            scales = step.scales.contiguous()
            self.kept.append(scales)
            made.weight_scales, made.weight_scale_count = scales.data_ptr(), scales.numel()

    def _epilogue(self, step: Step) -> CEpilogue:
        made = _epilogue(step.post)
        made.low, made.high = step.low, step.high
        for index, op in enumerate(step.post):
            if op.name == "sum" and isinstance(step, Accumulate) and step.summand is not None:
                post = made.ops[index]
                post.scale, post.zero_point = step.summand.scale, step.summand.zero_point
        return made

    def _tensor(self, value: Value) -> CTensor:
        made = self._described(value.layout, value.buffer)
        made.scale, made.zero_point = value.scale, value.zero_point
        return made

    def _constant(self, tensor: Tensor) -> CTensor:
        made = self._described(layout_of(tensor), Buffer(0, "constant", constant=tensor))
        made.scale = 1.0
        return made

    def _described(self, layout: Tensor, buffer: Buffer) -> CTensor:
        made = CTensor(
            place=interface.PLACES[buffer.place],
            index=buffer.index,
            dtype=interface.DTYPES[layout.dtype],
            ndims=max(layout.dim(), 1),
            offset=layout.storage_offset() * layout.element_size(),
        )
        if buffer.place == "arena":
            made.offset += self._arena.offsets[buffer]
        if buffer.constant is not None:
            self.kept.append(buffer.constant)
            made.data = buffer.constant.data_ptr()
        made.dims[0], made.strides[0] = 1, 1  # of a number
        for axis, (size, stride) in enumerate(zip(layout.shape, layout.stride(), strict=True)):
            made.dims[axis], made.strides[axis] = size, stride
        return made


def _epilogue(post: Sequence[PostOp]) -> CEpilogue:
    made = CEpilogue(count=len(post))
    for index, op in enumerate(post):
        made.ops[index] = CPostOp(interface.POST_OPS[op.name], op.alpha, op.beta)
    return made


def _as_rows(tensor: CTensor) -> CTensor:
    """Return a contiguous tensor as a matrix of its last dimension."""
    rows = 1
    for axis in range(tensor.ndims - 1):
        rows *= tensor.dims[axis]
    width = tensor.dims[tensor.ndims - 1]
    tensor.ndims = 2
    tensor.dims[0], tensor.dims[1] = rows, width
    tensor.strides[0], tensor.strides[1] = width, 1
    return tensor


def _three(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * 3)(*values)


_Encode = Callable[[Encoder, Any], ctypes.Structure]
_ENCODERS: dict[type[Step], tuple[str, _Encode]] = {
    Convolution: ("add_convolution", Encoder.convolution),
    MatMul: ("add_matmul", Encoder.matmul),
    Pointwise: ("add_pointwise", Encoder.pointwise),
    Lookup: ("add_lookup", Encoder.lookup),
    Fill: ("add_fill", Encoder.fill),
    Pool: ("add_pool", Encoder.pool),
    Interpolate: ("add_interpolate", Encoder.interpolate),
    LayerNorm: ("add_layer_norm", Encoder.layer_norm),
    Softmax: ("add_softmax", Encoder.softmax),
    Attention: ("add_attention", Encoder.attention),
}
