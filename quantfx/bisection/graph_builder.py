"""Build graphs by code, in reduced files and while reducing.

The graphs have the form that ``capture`` returns, with the given names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.graph.clone import recompile, set_tensor
from quantfx.passes.graph.facts import set_facts
from quantfx.passes.graph.graphs import is_stored
from quantfx.saving.fake_text import fake_mode


class GraphBuilder:
    """Builds a graph node by node.

    Attributes:
        inputs: Values for its arguments, in order.
    """

    def __init__(self) -> None:
        self._module = GraphModule(nn.Module(), Graph())
        self.inputs: list[Tensor] = []

    def argument(self, name: str, value: Tensor) -> Node:
        """Add an argument whose input is ``value``; arguments come first."""
        node = self._module.graph.create_node("placeholder", name, (), {}, name)
        self.inputs.append(value)
        return _with_value(node, _fake(value))

    def stored(self, name: str, target: str, value: Tensor) -> Node:
        """Store ``value`` as the buffer ``target``, and read it."""
        if not is_stored(self._module, target):
            set_tensor(self._module, target, value)
        node = self._module.graph.create_node("get_attr", target, (), {}, name)
        return _with_value(node, _fake(value))

    def call(
        self, name: str, target: Callable[..., Any], *args: Any, scope: str = "", **kwargs: Any
    ) -> Node:
        """Call an operator.

        Args:
            name: Name of the node.
            target: The operator.
            args: Values and nodes.
            scope: Path of the module that it came from.
            kwargs: Values and nodes.
        """
        node = self._module.graph.create_node("call_function", target, args, kwargs, name)
        if scope:
            node.meta["nn_module_stack"] = {scope: (scope, "")}
        given, named = map_arg((args, kwargs), lambda each: each.meta["val"])
        with torch.no_grad(), _mode():
            return _with_value(node, target(*given, **named))

    def module(self, *results: Node) -> GraphModule:
        """Return the graph that returns ``results``."""
        output = self._module.graph.output(tuple(results))
        output.meta["val"] = tuple(each.meta["val"] for each in results)
        set_facts(self._module, frozenset({"captured"}))
        recompile(self._module)
        return self._module


def random_tensor(
    shape: Sequence[int], dtype: torch.dtype, low: float, high: float, seed: int
) -> Tensor:
    """Return values between ``low`` and ``high``, equal for equal seeds."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    values = uniform * (high - low) + low
    return (values if dtype.is_floating_point else values.round()).to(dtype)


def _with_value(node: Node, value: object) -> Node:
    node.meta["val"] = value
    return node


def _fake(value: Tensor) -> Any:
    return _mode().from_tensor(value.detach(), static_shapes=True)


_mode = lru_cache(maxsize=1)(fake_mode)
