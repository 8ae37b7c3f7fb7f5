"""Refuse to prepare what is prepared or quantized already."""

from __future__ import annotations

from torch.fx import GraphModule

from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.facts import facts_of
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.quant.qdq import quantizes


def require_float_graph(graph: GraphModule) -> None:
    """Raise for a graph with observers or q/dq, also if pickle or torch.export lost its facts.

    Raises:
        PipelineError: it is one; names the first quantize.
    """
    nodes = (node for _, inner in all_graphs(graph) for node in inner.graph.nodes)
    node = next(filter(quantizes, nodes), None)
    if node is None and facts_of(graph).isdisjoint({"observed", "qdq"}):
        return
    raise PipelineError(
        f"the graph is prepared or quantized already{f', by {node.name}' if node else ''}",
        rule="not-captured",
        site=node.name if node else None,
        fix="give the float model, or what capture makes of it",
    )
