"""Compute what a q/dq graph makes of given values, with quantize and dequantize in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from quantfx.passes.quant.qdq import (
    DEQUANTIZE_PER_TENSOR,
    QUANTIZE_PER_TENSOR,
    qparams_of,
    tensor_qparams,
)
from quantfx.passes.report.compare.stepper import Stepper


class Rounding(Stepper):
    """Evaluates nodes of a q/dq graph.

    A pair of quantize and dequantize is one call of torch's fake-quantize, which has the same
    values and reads its input once instead of eight times.
    """

    def _call(self, node: Node, values: Mapping[Node, Any]) -> Any:
        if not _ends_pair(node):
            return super()._call(node, values)
        quantize = node.all_input_nodes[0]
        x = values[quantize.all_input_nodes[0]]
        if x.dtype != torch.float32:
            return super()._call(node, {quantize: super()._call(quantize, values)})
        given = tensor_qparams(quantize)
        return torch.fake_quantize_per_tensor_affine(
            x, given.scale, given.zero_point, given.quant_min, given.quant_max
        )


def without_paired(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return ``nodes`` without each quantize that only dequantizes read, which pair with it."""
    inner = frozenset(nodes)
    return tuple(
        node
        for node in nodes
        if node.target != QUANTIZE_PER_TENSOR
        or not all(_ends_pair(user) for user in node.users if user in inner)
    )


def _ends_pair(node: Node) -> bool:
    if node.target != DEQUANTIZE_PER_TENSOR:
        return False
    [source] = node.all_input_nodes
    return source.target == QUANTIZE_PER_TENSOR and qparams_of(source) == qparams_of(node)
