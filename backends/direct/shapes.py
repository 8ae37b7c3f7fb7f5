"""The shape, strides and dtype of every node of a graph, for given inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule, Node


class Untranslatable(Exception):
    """A node that no step computes.

    Attributes:
        node: Which one.
        reason: Why, as a sentence.
    """

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(f"{node.name}: {reason}")
        self.node = node
        self.reason = reason


class _Shapes(fx.Interpreter):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.found: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        try:
            result = super().run_node(n)
        except RuntimeError as error:  # a view that the layout of its source does not allow
            raise Untranslatable(n, f"torch refuses it for these layouts: {error}") from error
        if isinstance(result, Tensor):
            self.found[n] = result
        return result

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        return value.detach().to("meta") if isinstance(value, Tensor) else value


def shapes_of(module: GraphModule, inputs: Sequence[Tensor]) -> dict[Node, Tensor]:
    """Run ``module`` on device meta, where nothing is computed.

    Args:
        module: Operators on tensors, and constants.
        inputs: On device meta.

    Returns:
        The result of each node that has one.

    Raises:
        Untranslatable: torch refuses a node for these layouts.
    """
    shapes = _Shapes(module)
    with torch.no_grad():
        shapes.run(*inputs)
    return shapes.found
