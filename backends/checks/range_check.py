"""Whether the int8 sums of kernels saturate, with the actual weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import Site, all_graphs, constant
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL, dequantizes, dtype_of
from quantfx.passes.quant.qparams import S16_MAX, Pairing, saturates
from quantfx.passes.report.contract import planned_matches
from quantfx.patterns.schema import argument_value

_QUANT_MAX = 4  # position of quant_max in a per-tensor dequantize


def saturating_sites(module: GraphModule, *, any_two: bool = False) -> list[Site]:
    """Return the convolutions and linears of a q/dq graph whose integer sums can pass 32767.

    The bound is exact for the pairs oneDNN adds (see ``QuantSpec.pair_bound``) and assumes that
    activations reach the end of their integer range.

    Args:
        module: The q/dq graph.
        any_two: Whether convolutions may add up any two products.
    """
    planned = {
        match.site
        for match in planned_matches(module)
        if match.annotation.kind.startswith(("conv", "linear"))
    }
    return [
        Site(path, node.name)
        for path, graph_module in all_graphs(module)
        for node in graph_module.graph.nodes
        if Site(path, node.name) in planned and _saturates(graph_module, node, any_two)
    ]


def _saturates(module: GraphModule, node: Node, any_two: bool) -> bool:
    weight = _integers(module, argument_value(node, "weight"))
    activation = argument_value(node, "input")
    if weight is None or not (isinstance(activation, Node) and dequantizes(activation)):
        return False
    largest = activation.args[_QUANT_MAX]
    if not isinstance(largest, int):
        return False
    if dtype_of(activation) == torch.int8:
        largest += 128  # kernels shift these to be unsigned
    turned = "transpose" in str(node.target)
    # Only prepared plans take a scale per channel here, and compute plain convolutions.
    known = argument_value(node, "weight").target is DEQUANTIZE_PER_CHANNEL
    if (turned and not known) or (any_two and weight.dim() > 2):
        return 2 * int(weight.int().abs().max()) * largest > S16_MAX
    if turned:
        weight = weight.transpose(0, 1)  # of one group
    pairing: Pairing = "adjacent" if weight.dim() == 2 else "blocks"
    return bool(saturates(weight, largest, pairing).any())


def _integers(module: GraphModule, dequantize: Node) -> Tensor | None:
    """Return the integers that a dequantize of a constant reads."""
    return constant(module, dequantize.args[0]) if dequantizes(dequantize) else None
