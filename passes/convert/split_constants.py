"""Give every dequantize of a weight a constant of its own, which Inductor then packs for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs, attribute
from quantfx.passes.graph.value_numbers import value_numbers
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.qdq import dequantizes


@dataclass(frozen=True)
class SplitConstants(Pass):
    """``f(dq(w)), g(dq(w)) -> f(dq(w)), g(dq(w'))`` with w' a copy, for Inductor only.

    torch 2.13 merges equal dequantizes into one, whose two readers then match none of its int8
    patterns: a layer that is called twice would stay float.
    """

    name: ClassVar[str] = "split-constants"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Copy the integers for every dequantize whose reader computes something new."""
        copies = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            numbers = value_numbers(graph_module)
            # (weight, values its readers compute) -> the constant for them. Readers that compute
            # the same keep one: Inductor merges them, as it should.
            constants: dict[tuple[str, tuple[int, ...]], Node] = {}
            weights: set[str] = set()
            for node in [each for each in numbers if dequantizes(each)]:
                source = node.args[0]
                if not isinstance(source, Node) or source.op != "get_attr":
                    continue
                key = (str(source.target), tuple(numbers[user] for user in node.users))
                if key not in constants:
                    constants[key] = source
                    if key[0] in weights:
                        constants[key] = _copy(editor, node, source)
                        copies += 1
                    weights.add(key[0])
                node.args = (constants[key], *node.args[1:])
        return PassResult(copies > 0, stats={"copies": copies})


def _copy(editor: Editor, node: Node, source: Node) -> Node:
    value = attribute(editor.module, str(source.target))
    if not isinstance(value, Tensor):
        raise TypeError(f"{source.name} is not a tensor")
    return editor.constant(str(source.target), torch.clone(value), like=source, before=node)
