"""The kernel family ``weight_only``: float activations times int8 or int4 weights.

``linear(x, dq(w), b) -> weight_linear(x, w, scales, zero_points, b)``. It takes rows in any
dimensions, and reads the q/dq graph's own int8 weights, so that an embedding tied to them still
reads the same tensor. Groups of values whose range fits 4 bits are int4: the lowered graph holds
two per byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from quantfx.backends.onednn.weight_reason import weight_reason
from quantfx.backends.weight_only.operator import NAME, kernel_name, weight_linear
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily, argument_node
from quantfx.passes.quant.nibbles import HIGH, LOW, fits_nibbles, stored_nibbles
from quantfx.passes.quant.qdq import DEQUANTIZE_GROUPS, DEQUANTIZE_PER_CHANNEL, dequantizes
from quantfx.passes.quant.spec import LEAST_GROUP
from quantfx.patterns.schema import argument_value


@dataclass(frozen=True)
class WeightOnly(KernelFamily):
    """quantfx's kernels for linears with only the weight quantized."""

    name: ClassVar[str] = "weight_only"
    kernels: ClassVar[frozenset[str]] = frozenset({NAME})
    needs_process: ClassVar[bool] = True

    def prepare(self) -> None:
        """Define the operator."""
        weight_linear()

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return why the kernels do not take the weight, as a sentence."""
        if reason := candidate.indirect("weight"):
            return reason
        if dequantizes(argument_node(candidate.anchor, "input")):
            return "its input is quantized too"
        dequantize = candidate.dequantize("weight")
        if dequantize.target is DEQUANTIZE_GROUPS:
            return _groups_reason(candidate, editor)
        if dequantize.target is not DEQUANTIZE_PER_CHANNEL:
            return f"{candidate.quantized('weight').name} does not have one scale per row"
        return weight_reason(candidate, editor)

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the call."""
        node, dequantize = candidate.anchor, candidate.dequantize("weight")
        weight, zeros = candidate.quantized("weight"), None
        if dequantize.target is DEQUANTIZE_GROUPS and fits_nibbles(dequantize):
            zeros = argument_node(dequantize, "zero_points")
            stored = editor.stored(zeros)
            zeros = None if stored is None or not bool(stored.any()) else zeros
            weight = stored_nibbles(editor, weight, before=node)
        given = (argument_node(node, "input"), weight, argument_node(dequantize, "scales"))
        bias = argument_value(node, "bias")
        call = editor.call(weight_linear(), (*given, zeros, bias), like=node, before=node)
        return Emission(call, node, kernel_name())


def _groups_reason(candidate: Candidate, editor: Editor) -> str | None:
    dequantize, weight = candidate.dequantize("weight"), candidate.quantized("weight")
    values = editor.stored(weight)
    scales, zeros = (
        editor.stored(argument_value(dequantize, name)) for name in ("scales", "zero_points")
    )
    if values is None or scales is None or zeros is None:
        return f"the integers, scales or zero points of {weight.name} are computed, not stored"
    group = int(argument_value(dequantize, "group_size"))
    if group % LEAST_GROUP or scales.numel() * group != values.numel():
        return f"{weight.name} has groups of {group}, the kernel takes multiples of {LEAST_GROUP}"
    if values.dtype != torch.int8 or zeros.dtype != torch.int8:
        return f"{weight.name} or its zero points are not torch.int8, which the kernel takes"
    if not fits_nibbles(dequantize) and bool(zeros.any()):
        return f"{weight.name} has zero points, which the kernel takes in [{LOW}, {HIGH}] only"
    return None
