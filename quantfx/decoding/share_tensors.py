"""Let two graphs of one model share their weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.graphs import all_graphs, constant


def share_tensors(first: GraphModule, second: GraphModule) -> int:
    """Let ``second`` read equal tensors of ``first`` in place of its own; return how many.

    Tensors are compared under equal names, which derive from the model's names.
    """
    known = {(path, target): tensor for path, _, target, tensor in _stored(first)}
    shared = 0
    for path, module, target, tensor in list(_stored(second)):
        same = known.get((path, target))
        if same is None or same is tensor or same.dtype != tensor.dtype:
            continue
        if same.shape == tensor.shape and torch.equal(same, tensor):
            set_tensor(module, target, same)
            shared += 1
    return shared


def _stored(module: GraphModule) -> list[tuple[str, GraphModule, str, Tensor]]:
    found: dict[tuple[str, str], tuple[str, GraphModule, str, Tensor]] = {}
    for path, graph_module in all_graphs(module):
        for node in graph_module.graph.find_nodes(op="get_attr"):
            value = constant(graph_module, node)
            if value is not None:
                target = str(node.target)
                found[path, target] = (path, graph_module, target, value)
    return list(found.values())
