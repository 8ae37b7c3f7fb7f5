"""Compute what leads from a stored tensor to its quantize, so that the weight can be folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.aliasing import overwritten, writes_to
from quantfx.passes.base import Context, Pass, PassResult
from quantfx.passes.editor import Editor
from quantfx.passes.graphs import all_graphs, attribute
from quantfx.passes.qdq import quantizes
from quantfx.patterns.schema import is_aten_call, overload


@dataclass(frozen=True)
class FoldConstantChains(Pass):
    """``q(t(weight)) -> q(weight_t)``, a constant.

    Only what a quantize reads is computed: other arithmetic on constants is the model's own.
    """

    name: ClassVar[str] = "fold-constant-chains"
    requires: ClassVar[frozenset[str]] = frozenset({"qdq"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Fold in every graph."""
        edits = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            written = overwritten(graph_module.graph)
            for node in list(graph_module.graph.nodes):
                if quantizes(node):
                    _fold(editor, node, set(written))
            edits += editor.edits
        return PassResult(edits > 0, stats={"edits": edits})


def _fold(editor: Editor, quantize: Node, written: set[Node]) -> None:
    source = quantize.args[0]
    if not isinstance(source, Node) or source.op == "get_attr":
        return
    chain = _chain(source, written)
    if chain is None:
        return
    with torch.no_grad():
        value = _value(editor.module, source)
    stored = next(node for node in chain if node.op == "get_attr")
    constant = editor.constant(
        f"{stored.target}_{source.name}", value, like=stored, before=quantize
    )
    quantize.replace_input_with(source, constant)
    for node in chain:  # from the quantize backwards
        if not node.users:
            editor.erase(node)


def _chain(source: Node, written: set[Node]) -> list[Node] | None:
    """Return the nodes that compute ``source``, last first, None unless all are constant."""
    found: dict[Node, None] = {}
    pending = [source]
    while pending:
        node = pending.pop()
        pure = node.op == "get_attr" or (is_aten_call(node) and not writes_to(node))
        if not pure or node in written or _draws(node):
            return None
        found[node] = None
        pending += node.all_input_nodes
    chain = sorted(found, reverse=True)
    return chain if any(node.op == "get_attr" for node in chain) else None


def _draws(node: Node) -> bool:
    tags = overload(node).tags if is_aten_call(node) else []
    return torch.Tag.nondeterministic_seeded in tags


def _value(module: GraphModule, node: Node) -> Tensor:
    if node.op == "get_attr":
        value: object = attribute(module, str(node.target))
    else:
        args = map_arg(node.args, lambda n: _value(module, n))
        kwargs = map_arg(node.kwargs, lambda n: _value(module, n))
        value = overload(node)(*args, **kwargs)
    if not isinstance(value, Tensor):
        raise TypeError(f"{node.name} is not a tensor")
    return value
