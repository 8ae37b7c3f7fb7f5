"""Let int8 flow through operators that only move or pool values, if their inputs are int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch.fx import GraphModule, Node

from quantfx.passes.annotate.annotate import Annotate
from quantfx.passes.graph.boundary import GraphNode, operands, resolve
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.remark import Remark
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.permits import LEFT_FLOAT, may
from quantfx.passes.quant.annotation import Annotation, annotated, annotation_of, set_annotation


class Propagate(Pass):
    """Match the templates of group ``propagate`` and settle every pending annotation.

    One sweep in graph order: a pending match holds if each quantized input comes out of a
    quantized pattern; otherwise its annotation is removed and a remark says which input failed.
    """

    name = "propagate"
    provides = frozenset({"propagated"})
    breaks = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Annotate candidates, then keep or drop each."""
        remarks = list(Annotate("propagate").run(module, context).remarks)
        outer = operands(module)
        kept = 0
        for path, graph_module in all_graphs(module):
            for node, annotation in annotated(graph_module.graph):
                if not annotation.pending:
                    continue
                reason = _float_input(path, node, annotation, outer)
                site = Site(path, annotation.match)
                if reason is None and not may(self.name, annotation.template, site):
                    reason = LEFT_FLOAT
                if reason is None:
                    set_annotation(node, replace(annotation, pending=False))
                    kept += 1
                else:
                    set_annotation(node, None)
                    remarks.append(Remark("missed", path, node.name, reason, str(node.target)))
        return PassResult(tuple(remarks), {"kept": kept, "dropped": len(remarks)})


def _float_input(
    path: str, node: Node, annotation: Annotation, outer: Mapping[Node, GraphNode]
) -> str | None:
    for slot, _ in annotation.inputs:
        _, producer = resolve((path, read_slot(node, slot)), outer)
        source = annotation_of(producer)
        if source is None or source.pending or not source.is_output:
            return f"its input {producer.name} is not the output of a quantized pattern"
        if source.mode != "static":
            return f"its input {producer.name} is float: {source.mode} kernels yield no int8"
    return None
