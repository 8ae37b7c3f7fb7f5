"""The kernel family ``native-layers``: static convolutions and linears of namespace ``quantized``.

``q(relu(conv2d(dq(x), dq(w), b))) -> quantized.conv2d_relu(x, packed(w, b), scale, zero_point)``
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.checks.targets import host
from quantfx.backends.onednn.conv_shape import pad_beforehand
from quantfx.backends.onednn.overflow_reason import overflow_reason
from quantfx.backends.onednn.weight_reason import weight_reason
from quantfx.backends.quantized.engines import Engines, Transposed
from quantfx.backends.quantized.family import NativeFamily, write_packed
from quantfx.backends.quantized.packed_layer import PackedLayer
from quantfx.backends.quantized.static import (
    limit_quantized,
    result_qparams,
    result_reason,
    unsigned_reason,
)
from quantfx.passes.graph.conv_geometry import Geometry
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import (
    Candidate,
    Emission,
    Saturation,
    argument_node,
)
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value, resolve_op

_SLICE = resolve_op("aten.slice.Tensor")
_CONV = frozenset(f"quantized.conv{n}d" for n in (1, 2, 3))
_TRANSPOSED = frozenset(f"quantized.conv_transpose{n}d" for n in (1, 2, 3))
_LINEAR = "quantized.linear"
# The overload that takes packed parameters alone; in one dimension there is no other.
_OVERLOADS = {f"quantized.conv{n}d{relu}": "new" for n in (2, 3) for relu in ("", "_relu")}


@dataclass(frozen=True)
class NativeLayers(NativeFamily):
    """torch's quantized layers, each packed for an engine.

    Attributes:
        engines: The engines that pack them.
        limits: Whether results are clamped to integer ranges narrower than the dtype's, unlike in
            FX graph mode.
    """

    engines: Engines = Engines()  # noqa: RUF009  a frozen value
    limits: bool = True

    name = "native-layers"
    kernels = _CONV | _TRANSPOSED | {_LINEAR}

    @property
    def saturates(self) -> Saturation:
        """The sums that its engines saturate."""
        return self.engines.saturates

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return the first condition of the kernel that the candidate does not meet."""
        return (
            candidate.indirect("input", "weight")
            or unsigned_reason(candidate.dequantize("input"))
            or result_reason(candidate)
            or layer_reason(candidate, editor)
            or overflow_reason(candidate)
            or self._engine_reason(candidate)
            or self._limit_reason(candidate)
            or self._bias_reason(candidate, editor)
        )

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the packing, which runs once, and the kernel call."""
        before = candidate.match.output
        if candidate.kernel == _LINEAR:
            x = candidate.quantized("input")
            engine = self.engines.linear("linear", rows_of(x))
            packed = PackedLayer("quantized.linear_prepack.default", engine)
            return self._emit(candidate, editor, x, packed, before)
        shape = geometry_of(candidate)
        if candidate.kernel in _TRANSPOSED:
            return self._emit_transposed(candidate, editor, shape)
        x, shape = pad_uneven(candidate, editor, shape)
        engine = self.engines.conv(group_inputs(candidate), host().saturates) or ""
        packed = PackedLayer(f"{candidate.kernel}_prepack.default", engine, shape)
        return self._emit(candidate, editor, x, packed, before)

    def _emit_transposed(self, candidate: Candidate, editor: Editor, shape: Geometry) -> Emission:
        """Write a transposed convolution; grow a kernel that no engine computes right by zeros."""
        before = candidate.match.output
        engine = self._find_transposed_engine(candidate, shape)
        grown = (0,) * len(shape.kernel)
        if engine is None:
            grown = tuple(int(size == 2) for size in shape.kernel)
            engine = self._find_transposed_engine(candidate, _grow_kernel(shape, grown)) or ""
        prepack = f"{candidate.kernel}_prepack.default"
        packed = PackedLayer(prepack, engine, shape, grown=grown)
        x = candidate.quantized("input")
        return self._emit(candidate, editor, x, packed, before, grown=grown)

    def _emit(
        self,
        candidate: Candidate,
        editor: Editor,
        x: Node,
        packed: PackedLayer,
        before: Node,
        grown: tuple[int, ...] = (),
    ) -> Emission:
        node, qparams = candidate.anchor, result_qparams(candidate)
        relu = "_relu" if candidate.behind else ""
        kernel = f"{candidate.kernel}{relu}"
        call = editor.call(
            resolve_op(f"{kernel}.{_OVERLOADS.get(kernel, 'default')}"),
            (x, pack(candidate, editor, packed, before), qparams.scale, qparams.zero_point),
            like=node,
            before=before,
            val=before.meta.get("val"),
        )
        result = _cut_result(call, packed.geometry, grown, editor, before)
        if self.limits:
            result = limit_quantized(result, qparams, editor, before, self.engines.runs_qnnpack)
        return Emission(result, before, kernel)

    def _limit_reason(self, candidate: Candidate) -> str | None:
        """Return why unclamped results are refused: beyond a reduced range, sums saturate."""
        largest = argument_value(candidate.dequantize("input"), "quant_max")
        if self.limits or self.saturates == "none" or largest > 127 or not host().saturates:
            return None
        return "limits=False lets activations pass 127, where sums saturate on this CPU (no VNNI)"

    def _bias_reason(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return why qnnpack, with 32 bits for ``bias / (x_scale * w_scale)``, cannot take it."""
        kinds = (("linear", {_LINEAR}), ("conv", _CONV), ("conv_transpose", _TRANSPOSED))
        op = next(op for op, kernels in kinds if candidate.kernel in kernels)
        bias = editor.stored(argument_value(candidate.anchor, "bias"))
        if self.engines.get(op) != "qnnpack" or bias is None:
            return None
        scales = _weight_scales(candidate, editor).double()
        steps = scales * float(argument_value(candidate.dequantize("input"), "scale"))
        if bool((bias.detach().double().abs() / steps < 2**31).all()):
            return None
        return "engine qnnpack keeps a bias in 32 bits, and beside tiny weights this one has more"

    def _engine_reason(self, candidate: Candidate) -> str | None:
        is_conv = candidate.kernel in _CONV
        if is_conv and self.engines.conv(group_inputs(candidate), host().saturates) is None:
            asked = self.engines.get("conv")
            return f"engine {asked} computes convolutions with one channel a group wrongly"
        if candidate.kernel in _TRANSPOSED:
            shape = geometry_of(candidate)
            grown = tuple(int(size == 2) for size in shape.kernel)
            shapes = (shape, _grow_kernel(shape, grown))
            if not any(self._find_transposed_engine(candidate, each) for each in shapes):
                asked = self.engines.get("conv_transpose")
                return f"engine {asked} computes a transposed convolution of this shape wrongly"
        return None

    def _find_transposed_engine(self, candidate: Candidate, shape: Geometry) -> str | None:
        weight = candidate.quantized("weight").meta["val"]
        transposed = Transposed(
            inputs=weight.shape[0] // shape.groups,
            outputs=weight.shape[1],
            kernel=shape.kernel,
            extent=shape.extent,
            stride=shape.stride,
            padded=any(shape.output_padding or ()),
        )
        return self.engines.conv_transpose(transposed)


def pack(candidate: Candidate, editor: Editor, packed: PackedLayer, before: Node) -> Node:
    """Write the packing of the weight and bias of ``candidate``."""
    dequantize, weight = candidate.dequantize("weight"), candidate.quantized("weight")
    scales: Node | None = None
    if dequantize.target is DEQUANTIZE_PER_CHANNEL:
        scales = argument_node(dequantize, "scales")
    else:
        packed.scale = float(argument_value(dequantize, "scale"))
    bias = argument_value(candidate.anchor, "bias")
    return write_packed(editor, packed, weight, scales, bias, before=before)


def layer_reason(candidate: Candidate, editor: Editor) -> str | None:
    """Return why packing does not take the weight, which must be int8, symmetric and stored."""
    dequantize, weight = candidate.dequantize("weight"), candidate.quantized("weight")
    per_channel = dequantize.target is DEQUANTIZE_PER_CHANNEL
    if editor.stored(weight) is None:
        return f"{weight.name} is computed, not stored"
    if per_channel and candidate.kernel in _TRANSPOSED:
        return f"{weight.name} has a scale for each channel, the kernel takes one"
    return weight_reason(candidate, editor)


def _weight_scales(candidate: Candidate, editor: Editor) -> Tensor:
    dequantize = candidate.dequantize("weight")
    if dequantize.target is not DEQUANTIZE_PER_CHANNEL:
        return torch.tensor(float(argument_value(dequantize, "scale")))
    scales = editor.stored(argument_value(dequantize, "scales"))
    assert scales is not None, "layer_reason has seen to it"
    return scales


def rows_of(x: Node) -> int | None:
    """Return the number of rows of ``x`` as a matrix; None if a size is free."""
    sizes = list(x.meta["val"].shape[:-1])
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else None


def geometry_of(candidate: Candidate) -> Geometry:
    """Return the geometry of the candidate's convolution."""
    kernel = tuple(int(size) for size in candidate.quantized("weight").meta["val"].shape[2:])
    return Geometry.of(candidate.anchor, kernel)


def group_inputs(candidate: Candidate) -> int:
    """Return the number of input channels of a group of the convolution."""
    return int(candidate.quantized("weight").meta["val"].shape[1])


def pad_uneven(candidate: Candidate, editor: Editor, shape: Geometry) -> tuple[Node, Geometry]:
    """Pad the input if the kernel cannot: with more padding at one end than at the other."""
    x = candidate.quantized("input")
    if shape.is_even:
        return x, shape
    return pad_beforehand(x, 0.0, shape, editor, candidate.match.output)


def _grow_kernel(geometry: Geometry, grown: tuple[int, ...]) -> Geometry:
    kernel = tuple(size + more for size, more in zip(geometry.kernel, grown, strict=True))
    return replace(geometry, kernel=kernel)


def _cut_result(
    call: Node, geometry: Geometry | None, grown: tuple[int, ...], editor: Editor, before: Node
) -> Node:
    """Remove the end of the result that the zeros after the kernel have added."""
    if geometry is None:
        return call
    val = call.meta.get("val")
    assert isinstance(val, Tensor), "taken from the quantize of the result"
    for axis, more in enumerate(grown):
        if more:
            end = -more * geometry.dilation[axis]
            args = (call, axis + 2, 0, end)
            call = editor.call(_SLICE, args, like=call, before=before, val=val)
    return call
