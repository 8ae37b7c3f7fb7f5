"""Compute once what several kernel calls would compute from the same tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.value_numbers import value_numbers
from quantfx.passes.pipeline.base import Context, Pass, PassResult, Remark
from quantfx.passes.quant.lowered import lowered_of, site_of
from quantfx.passes.quant.qdq import has_qparams

MERGED = "merged with its equal"


@dataclass(frozen=True)
class MergeEqual(Pass):
    """``k(x), k(x) -> y, y`` with ``y = k(x)``, for kernel calls, their packing, q and dq."""

    name: ClassVar[str] = "merge-equal"
    requires: ClassVar[frozenset[str]] = frozenset({"lowered"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Merge in every graph; a remark says which sites are no calls of their own any more."""
        remarks: list[Remark] = []
        merged = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            first: dict[int, Node] = {}
            for node, number in value_numbers(graph_module).items():
                if site_of(node) is None and not has_qparams(node):
                    continue
                if node.op == "call_function" and first.setdefault(number, node) is not node:
                    call = lowered_of(node)
                    if call is not None:
                        site = call.site
                        remarks.append(Remark("applied", site.graph, site.node, MERGED))
                    editor.replace(node, first[number])
                    merged += 1
            editor.drop_unused_attributes()
        return PassResult(tuple(remarks), {"merged": merged})
