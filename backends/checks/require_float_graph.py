"""Refuse to prepare a graph that is already prepared or quantized."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.facts import facts_of
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.quant.qdq import dequantizes, quantizes


def require_float_graph(graph: GraphModule) -> None:
    """Raise for a graph with observers or q/dq.

    Raises:
        PipelineError: the graph has observers or q/dq.
    """
    if not facts_of(graph).isdisjoint({"observed", "qdq"}):
        raise _already("")


def require_float_tensors(prepared: GraphModule) -> None:
    """Raise if every activation to quantize is already quantized.

    Then the graph is a q/dq graph that lost its facts to pickle or torch.export. A model may have
    some q/dq of its own beside float layers.

    Raises:
        PipelineError: every activation is quantized; names the first.
    """
    nodes = (node for _, inner in all_graphs(prepared) for node in inner.graph.nodes)
    found = [each for each in nodes if is_observer(each) and _source(each).op != "get_attr"]
    if found and all(map(_is_rounded, found)):
        raise _already(_source(found[0]).name)


def _source(observer: Node) -> Node:
    return observer.all_input_nodes[0]


def _is_rounded(observer: Node) -> bool:
    return dequantizes(_source(observer)) or any(map(quantizes, observer.users))


def _already(site: str) -> PipelineError:
    return PipelineError(
        f"the graph is prepared or quantized already{f', as {site} is' if site else ''}",
        rule="not-captured",
        site=site or None,
        fix="give the float model, or what capture makes of it",
    )
