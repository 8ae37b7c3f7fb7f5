"""Buffers that change when a module runs, such as a counter or a cache."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.graphs import all_graphs, constant


def own_state(module: GraphModule) -> None:
    """Give ``module`` copies of the tensors its nodes write to, so that no other module sees it."""
    for graph_module, target, value in _find_written(module):
        set_tensor(graph_module, target, value.detach().clone())


@contextmanager
def preserved_state(module: GraphModule) -> Generator[None]:
    """Restore the tensors that ``module`` writes to on exit."""
    saved = [(value, value.detach().clone()) for _, _, value in _find_written(module)]
    try:
        yield
    finally:
        with torch.no_grad():
            for value, before in saved:
                if value.shape != before.shape:  # torch.ao's observers start with empty tensors
                    value.resize_(before.shape)
                value.copy_(before)


def written_state(module: GraphModule) -> list[tuple[str, Tensor]]:
    """Return name and value of every stored tensor that the nodes of ``module`` write to."""
    return [(target, value) for _, target, value in _find_written(module)]


def _find_written(module: GraphModule) -> list[tuple[GraphModule, str, Tensor]]:
    found: dict[tuple[int, str], tuple[GraphModule, str, Tensor]] = {}
    for _, graph_module in all_graphs(module):
        for node in overwritten(graph_module.graph):
            if (value := constant(graph_module, node)) is not None:
                target = str(node.target)
                found[id(graph_module), target] = (graph_module, target, value)
    return list(found.values())
