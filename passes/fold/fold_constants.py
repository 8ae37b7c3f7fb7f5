"""Compute nodes that depend on parameters and buffers only: computed weights become stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.fold.compute_in_float32 import note_narrow
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.boundary import operands
from quantfx.passes.graph.constant_chain import constant_nodes, constant_value
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.facts import TRAINABLE, facts_of
from quantfx.passes.graph.graphs import Site, all_graphs, constant
from quantfx.passes.graph.non_data import data_nodes
from quantfx.passes.graph.remark import Remark
from quantfx.passes.graph.value_numbers import value_numbers
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.permits import LEFT_FLOAT, may

TRAINED = "training goes through its computation, so it becomes a stored weight only at the end"


@dataclass(frozen=True)
class FoldConstants(Pass):
    """``conv(x, div(w, norm(w))) -> conv(x, w_folded)``, a constant, for any reader.

    The operators run unchanged, so the float function stays bit-identical. A value that a layer
    recomputes in each of its calls is stored once. An operator that draws random numbers, writes,
    or reads a tensor that the graph writes to is not constant. A graph that trains is left
    unchanged: training goes through the computation of its weights.

    Attributes:
        growth: Bytes that a result may take beyond the stored tensors it is computed from. A larger
            result, as of ``expand``, stays computed, and its inputs are folded instead.
    """

    growth: int = 1 << 20

    name = "fold-constants"
    optional = True

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Fold in every graph."""
        trains = TRAINABLE in facts_of(module)
        data = data_nodes(module, operands(module))
        remarks: list[Remark] = []
        for path, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            found = constant_nodes(graph_module, overwritten(graph_module.graph))
            heads = list(_heads(graph_module, found, self.growth))
            if trains:
                remarks += [Remark("missed", path, head.name, TRAINED) for head in heads]
                continue
            equal = value_numbers(graph_module)
            stored: dict[int, Node] = {}
            for head in heads:
                if not may(self.name, site=Site(path, head.name)):
                    remarks.append(Remark("missed", path, head.name, LEFT_FLOAT))
                    continue
                # The largest stored tensor gives the name: the weight, not its scale.
                source = max(sorted(found[head]), key=lambda node: _bytes(graph_module, node))
                remarks.append(Remark("applied", path, head.name, f"made of {source.target}"))
                number = equal[head]
                if number not in stored:
                    stored[number] = _store(editor, head, source, is_data=head in data)
                    note_narrow(module, path, source, stored[number])
                editor.replace_uses(head, stored[number])
                editor.erase_unused(head)
            if editor.edits:
                editor.drop_unused_attributes()
        folded = sum(remark.kind == "applied" for remark in remarks)
        return PassResult(tuple(remarks), {"folded": folded})


def _heads(module: GraphModule, found: dict[Node, frozenset[Node]], growth: int) -> Iterator[Node]:
    """Yield the nodes to fold: constants of bounded size that a non-constant node reads."""
    bounded = (n for n, stored in found.items() if _is_bounded(module, n, stored, growth))
    small = dict.fromkeys(bounded)
    for node in small:
        if node.op == "call_function" and any(user not in small for user in node.users):
            yield node


def _is_bounded(module: GraphModule, node: Node, stored: frozenset[Node], growth: int) -> bool:
    value = node.meta.get("val")
    if node.op == "get_attr":
        return True
    if not stored or not isinstance(value, Tensor):
        return False
    made_of = sum(_bytes(module, each) for each in stored)
    return value.numel() * value.element_size() <= made_of + growth


def _bytes(module: GraphModule, node: Node) -> int:
    value = constant(module, node)
    return 0 if value is None else value.numel() * value.element_size()


def _store(editor: Editor, head: Node, source: Node, *, is_data: bool) -> Node:
    """Store the value of ``head``, and return the node that reads it."""
    value = constant_value(editor.module, head)
    if is_data:  # parameters are, buffers are not
        value = nn.Parameter(value, requires_grad=False)
    constant = editor.constant(f"{source.target}_folded", value, like=source, before=head)
    constant.meta["val"] = head.meta.get("val")
    return constant
