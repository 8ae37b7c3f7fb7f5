"""The shape, strides and dtype of every node of a graph, for given inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule, Node

from quantfx.patterns.schema import resolve_op

# Each keeps the layout of its input; on device meta some take milliseconds to say so.
_NAMES = "relu hardtanh clamp sigmoid tanh silu gelu hardswish hardsigmoid leaky_relu elu"
_SAME = frozenset(resolve_op(f"aten.{name}.default") for name in _NAMES.split())
_KEY = "quantfx_shapes"


class Untranslatable(Exception):
    """A node that no step computes.

    Attributes:
        node: The node.
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
        source = self.found.get(n.all_input_nodes[0]) if n.target in _SAME else None
        if source is not None and _is_plain(source):
            self.found[n] = source.detach()
            return self.found[n]
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


def _is_plain(x: Tensor) -> bool:
    """Whether ``x`` is dense, in an order that its strides determine uniquely."""
    first = x.numel() // max(x.shape[0], 1) if x.dim() else 0
    told = x.dim() > 0 and x.stride(0) == first and all(size > 1 for size in x.shape[1:])
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return (
        told and x.is_floating_point() and x.storage_offset() == 0 and (last or x.is_contiguous())
    )


def shapes_of(module: GraphModule, inputs: Sequence[Tensor]) -> dict[Node, Tensor]:
    """Run ``module`` on device meta, where nothing is computed.

    Results for the last layouts are kept with the module and its copies: the first plan of a region
    is mostly made for the captured layouts, by which it was formed.

    Args:
        module: Operators on tensors, and constants; does not change afterwards.
        inputs: Tensors on device meta.

    Returns:
        The result of each node that has one.

    Raises:
        Untranslatable: torch refuses a node for these layouts.
    """
    layouts = [(x.shape, x.stride(), x.storage_offset(), x.dtype) for x in inputs]
    kept, found = module.meta.get(_KEY, (None, ()))
    if kept != layouts:
        shapes = _Shapes(module)
        with torch.no_grad():
            shapes.run(*inputs)
        found = tuple(shapes.found.get(node) for node in module.graph.nodes)
        module.meta[_KEY] = layouts, found
    pairs = zip(module.graph.nodes, found, strict=True)
    return {node: value for node, value in pairs if value is not None}
