"""Check that sites share qparams with exactly the sites that they are tied to."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from torch.fx import GraphModule

from quantfx.passes.graph.boundary import operands, resolve
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.quant.annotation import Annotation, annotated


def wrong_groups(module: GraphModule) -> list[str]:
    """Return a line for each site that shares without a tie, or is tied without sharing.

    Two sites are tied if an annotation says so, or if they hold one tensor under equal specs.

    Args:
        module: The graph after the share pass.
    """
    groups = {
        Site(path, node, slot): group
        for path, node, annotation in _annotated(module)
        for slot, group in annotation.groups
    }
    # What stands for everything that a site, or a tensor under a spec, is tied to.
    tied: dict[Hashable, Hashable] = {}
    for a, b in _ties(module):
        old, new = tied.setdefault(a, a), tied.setdefault(b, b)
        tied |= {each: new for each, label in tied.items() if label == old}
    names: dict[Hashable, str] = {}
    firsts: dict[str, Hashable] = {}
    lines: list[str] = []
    for site, group in groups.items():
        tie = tied.get(site, site)
        if names.setdefault(tie, group) != group:
            lines.append(f"{site} is of group {group}, and tied to {names[tie]}")
        if firsts.setdefault(group, tie) != tie:
            lines.append(f"{site} is of group {group}, and nothing ties it to that")
    return lines


def _annotated(module: GraphModule) -> Iterator[tuple[str, str, Annotation]]:
    for path, graph_module in all_graphs(module):
        for node, annotation in annotated(graph_module.graph):
            yield path, node.name, annotation


def _ties(module: GraphModule) -> Iterator[tuple[Hashable, Hashable]]:
    outer = operands(module)
    nodes = {
        (path, node.name): node
        for path, graph_module in all_graphs(module)
        for node in graph_module.graph.nodes
    }
    for path, name, annotation in _annotated(module):
        for slot, other in annotation.shares:
            yield Site(path, name, slot), other
        if annotation.output is not None:
            yield Site(path, name), (path, name, annotation.output)
        for slot, spec in annotation.inputs if annotation.implicit else ():
            graph, producer = resolve((path, read_slot(nodes[path, name], slot)), outer)
            yield Site(path, name, slot), (graph, producer.name, spec)
