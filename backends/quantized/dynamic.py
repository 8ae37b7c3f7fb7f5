"""The kernel family ``native-dynamic``: linears with float inputs and results.

``relu(linear(dq(q(x)), dq(w), b)) -> quantized.linear_relu_dynamic(x, packed(w, b))``, where the
kernel finds the range of x in each call. Also linears with half-precision weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Node

from quantfx.backends.onednn.weight_reason import half_weight_reason
from quantfx.backends.quantized.engines import Engines
from quantfx.backends.quantized.family import NativeFamily, write_packed
from quantfx.backends.quantized.layers import layer_reason, pack, rows_of
from quantfx.backends.quantized.packed_layer import PackedHalf, PackedLayer
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import (
    Candidate,
    Emission,
    Saturation,
    argument_node,
)
from quantfx.passes.quant.qdq import DEQUANTIZE_DYNAMIC
from quantfx.patterns.schema import argument_value, resolve_op

_DYNAMIC = "quantized.linear_dynamic"
_FP16 = "quantized.linear_dynamic_fp16"
_REDUCED = 127


@dataclass(frozen=True)
class NativeDynamic(NativeFamily):
    """torch's dynamic linears.

    Attributes:
        engines: The engines that pack them.
    """

    engines: Engines = Engines()  # noqa: RUF009  a frozen value

    name = "native-dynamic"
    kernels = frozenset({_DYNAMIC, _FP16})

    @property
    def saturates(self) -> Saturation:
        """The sums that its engine saturates: linears add neighbours."""
        return "none" if self.engines.get("linear_dynamic") == "qnnpack" else "neighbours"

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return the first condition of the kernel that the candidate does not meet."""
        if candidate.quantize is not None and len(candidate.last_float.users) > 1:
            return f"{candidate.last_float.name} is read as float, too"
        if candidate.kernel == _FP16:
            return candidate.indirect("weight") or half_weight_reason(candidate, editor)
        return (
            candidate.indirect("input", "weight")
            or layer_reason(candidate, editor)
            or _range_reason(candidate)
        )

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the packing, which is done once, and the kernel call."""
        node, before = candidate.anchor, candidate.last_float
        relu = "relu_" if candidate.behind else ""
        if candidate.kernel == _FP16:
            kernel = f"quantized.linear_{relu}dynamic_fp16"
            x = argument_node(node, "input")
            weight = candidate.quantized("weight")
            bias = argument_value(node, "bias")
            half = PackedHalf(self.engines.other("linear_fp16"))
            packed = write_packed(editor, half, weight, bias, before=before)
            args: tuple[object, ...] = (x, packed)
        else:
            kernel = f"quantized.linear_{relu}dynamic"
            quantize = candidate.quantized("input")
            x = argument_node(quantize, "input")
            engine = self.engines.linear("linear_dynamic", rows_of(x))
            layer = PackedLayer("quantized.linear_prepack.default", engine)
            reduced = argument_value(quantize, "quant_max") == _REDUCED
            args = (x, pack(candidate, editor, layer, before), reduced)
        call = editor.call(
            resolve_op(f"{kernel}.default"),
            args,
            like=node,
            before=before,
            val=before.meta.get("val"),
        )
        return Emission(call, before, kernel)


def _range_reason(candidate: Candidate) -> str | None:
    """Return why the range is not the kernel's: an affine one in 0..255, or 0..127 if reduced."""
    dequantize = candidate.dequantize("input")
    if dequantize.target is not DEQUANTIZE_DYNAMIC:
        return f"{dequantize.name} has a fixed range"
    limits = argument_value(dequantize, "quant_min"), argument_value(dequantize, "quant_max")
    if limits not in ((0, 255), (0, _REDUCED)) or "symmetric" in str(_choose(dequantize).target):
        return f"{dequantize.name} has range {limits}, the kernel finds an affine one in 0..255"
    return None


def _choose(dequantize: Node) -> Node:
    """Return what finds the scale."""
    scale = argument_node(dequantize, "scale")
    return scale.all_input_nodes[0]
