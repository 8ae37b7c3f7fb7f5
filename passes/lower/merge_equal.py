"""Merge kernel calls that compute the same result from the same tensors."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.remark import MergedSite
from quantfx.passes.graph.value_numbers import value_numbers
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.lowered import lowered_of, site_of
from quantfx.passes.quant.qdq import has_qparams


class MergeEqual(GraphPass):
    """``k(x), k(x) -> y, y`` with ``y = k(x)``, for kernel calls, their packing, q and dq."""

    name = "merge-equal"
    optional = True
    counts = "merged"
    requires = frozenset({"lowered"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Merge in every graph; remarks name the sites that no longer have their own call."""
        merged = 0
        first: dict[int, Node] = {}
        for node, number in value_numbers(editor.module).items():
            if site_of(node) is None and not has_qparams(node):
                continue
            if node.op == "call_function" and first.setdefault(number, node) is not node:
                call, kept = lowered_of(node), lowered_of(first[number])
                if call is not None and kept is not None:
                    merged_site = MergedSite(call.site.graph, call.site.node, str(kept.site))
                    editor.remarks.append(merged_site)
                editor.replace(node, first[number])
                merged += 1
        editor.drop_unused_attributes()
        return merged
