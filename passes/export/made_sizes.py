"""Sizes and numbers that a graph makes itself, because they depend on the values of inputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.export.concrete_sizes import Symbolic
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.inputs.leaves import leaves_in


def makes_sizes(module: GraphModule) -> bool:
    """Whether a size or number is not among the inputs' sizes, e.g. the count of selected rows.

    Decided by the names of sizes: files keep the names, but not what torch knows about them.
    """
    known: set[str] = set()
    for node in module.graph.find_nodes(op="placeholder"):
        known |= _names(node)
    return any(
        not _names(node) <= known
        for _, graph_module in all_graphs(module)
        for node in graph_module.graph.nodes
    )


def _names(node: Node) -> set[str]:
    """Return the names of the sizes that the value of ``node`` has or is computed from."""
    names: set[str] = set()
    for leaf in leaves_in(node.meta.get("val")):
        if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
            numbers: tuple[object, ...] = (*leaf.shape, *leaf.stride(), leaf.storage_offset())
        else:
            numbers = (leaf,)
        for number in numbers:
            if isinstance(number, Symbolic):
                names |= {str(symbol) for symbol in number.node.expr.free_symbols}
    return names
