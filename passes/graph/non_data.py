"""Which tensors carry data: those computed from float inputs or trained parameters.

Position ids, masks, ``ones``, ``arange`` and values computed from shapes also become float tensors
once a model multiplies with them. But they are not activations: rounding them to 8 bits changes
what the model attends to. Spectra are complex, and images and sound arrive as integers of 8 or 16
bits: these carry data, though only floats are quantized. Wider integers count and index.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.fx import GraphModule, Node

from quantfx.passes.graph.boundary import GraphNode
from quantfx.passes.graph.graphs import all_graphs, constant

_NON_DATA = "quantfx_non_data"


def mark_non_data(node: Node) -> None:
    """Mark the placeholder ``node`` as a stored tensor, not an input of the model."""
    node.meta[_NON_DATA] = True


def data_nodes(module: GraphModule, outer: Mapping[Node, GraphNode]) -> set[Node]:
    """Return the nodes, of all graphs of ``module``, that carry data.

    Args:
        module: The top graph module; nested graphs follow.
        outer: What the placeholders of branches stand for, from ``boundary.operands``.
    """
    found: set[Node] = set()
    for path, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            if _carries(node, graph_module, path, outer, found):
                found.add(node)
    return found


def _carries(
    node: Node,
    module: GraphModule,
    path: str,
    outer: Mapping[Node, GraphNode],
    found: set[Node],
) -> bool:
    if node.op == "placeholder":
        if node in outer:
            return outer[node][1] in found
        if node.meta.get(_NON_DATA, False):
            return False
        # A loop's carried values have no operand on record: they count as data.
        return path != "" or _holds_samples(node)
    if node.op == "get_attr":
        return isinstance(constant(module, node), nn.Parameter)
    if not _holds_samples(node):
        return False
    return any(producer in found for producer in node.all_input_nodes)


def _holds_samples(node: Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or not _counts_or_masks(value.dtype)


def _counts_or_masks(dtype: torch.dtype) -> bool:
    if dtype.is_floating_point or dtype.is_complex:
        return False
    return dtype == torch.bool or dtype.itemsize > 2
