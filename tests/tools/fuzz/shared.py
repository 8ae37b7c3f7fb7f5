"""A model with its annotations as the share pass leaves them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx import backends
from quantfx.passes.quant.annotation import annotation_of, set_annotation
from tests import unchecked

X86 = backends.get("x86")


class Model(nn.Module):
    """A sum, a pool whose result int8 passes through, and readers of different tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        added = F.relu(self.first(x) + x.tanh())
        return self.second(F.max_pool2d(added, 2))


def shared() -> GraphModule:
    """Return the model's graph behind the share pass."""
    graph = unchecked.capture(Model().eval(), (torch.randn(2, 3, 8, 8),))
    return X86.prepare_pipeline.upto("share").run(graph, X86.context)


def node_of(module: GraphModule, kind: str) -> Node:
    """Return the first node of an operator."""
    return next(node for node in module.graph.nodes if kind in str(node.target))


def rewrite(node: Node, **changes: Any) -> None:
    """Put another annotation in the place of that of ``node``."""
    annotation = annotation_of(node)
    assert annotation is not None
    set_annotation(node, replace(annotation, **changes))
