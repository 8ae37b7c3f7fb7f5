"""Planned sites without a counterpart in the float graph, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Set

from torch.fx import GraphModule

from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.quant.annotation import Annotation, annotation_of


def left_out_sites(quantized: GraphModule, compared: Set[Site]) -> Iterator[tuple[str, str]]:
    """Yield the planned sites without numbers, once each, with the reason."""
    told: set[Site] = set()
    for path, graph_module in all_graphs(quantized):
        for node in graph_module.graph.nodes:
            annotation = annotation_of(node)
            site = None if annotation is None else Site(path, annotation.match)
            if annotation is None or site is None or site in compared | told:
                continue
            told.add(site)
            yield str(site), _reason(path, annotation)


def _reason(path: str, annotation: Annotation) -> str:
    if path:
        return "it runs inside control flow"
    if annotation.packs:
        return "its kernel quantizes the weight itself, but the q/dq graph has it in float"
    return "the float graph lacks it"
