"""Check that the meta of nodes matches their values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule, Node

from quantfx.passes.inputs.leaves import input_leaves


def wrong_meta(module: GraphModule, inputs: tuple[Any, ...]) -> list[str]:
    """Return a line for each node whose shape or dtype is not that of its meta.

    Args:
        module: A graph captured with ``inputs``, or made from one.
        inputs: Positional inputs.
    """
    comparing = _Comparing(module)
    leaves = [leaf.clone() for _, leaf in input_leaves(module, inputs, {})]
    with torch.no_grad():
        comparing.run(*leaves, enable_io_processing=False)
    return comparing.lines


class _Comparing(fx.Interpreter):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.lines: list[str] = []

    def run_node(self, n: Node) -> Any:
        """Run one node and compare its result with its meta."""
        made = super().run_node(n)
        said = n.meta.get("val")
        if isinstance(made, Tensor) and isinstance(said, Tensor):
            sizes = zip(made.shape, said.shape, strict=False)
            same = len(made.shape) == len(said.shape) and all(
                one == other for one, other in sizes if isinstance(other, int)
            )
            if not same or made.dtype != said.dtype:
                is_now, was = ((each.dtype, tuple(each.shape)) for each in (made, said))
                self.lines.append(f"{n.name} is {is_now}, not {was}")
        return made
