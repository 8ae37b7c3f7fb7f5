"""Decide which sites share an observer, and so their qparams."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.annotation import annotation_of, set_annotation
from quantfx.passes.base import Context, Pass, PassResult
from quantfx.passes.boundary import operands, resolve
from quantfx.passes.graphs import Site, all_graphs
from quantfx.passes.sharing import Groups, Sharing
from quantfx.passes.slots import read_slot


@dataclass(frozen=True)
class Share(Pass):
    """Solve the sharing constraints of all annotations and write each site's group on its node.

    Sites share if a template demands it (``out = same(x)``), or if they hold one tensor under
    equal specs: readers of one producer, or a reader and the output it reads. A tensor that control
    flow passes into a branch is one tensor on both sides.
    """

    name: ClassVar[str] = "share"
    requires: ClassVar[frozenset[str]] = frozenset({"annotated"})
    provides: ClassVar[frozenset[str]] = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Collect constraints from all graphs, solve, and write the groups."""
        groups = _constraints(module).solve()
        changed = False
        for path, graph_module in all_graphs(module):
            for node in graph_module.graph.nodes:
                changed |= _write_groups(path, node, groups)
        return PassResult(changed, stats={"groups": len(groups.specs)})


def _constraints(module: GraphModule) -> Sharing:
    graphs = list(all_graphs(module))
    position = {
        (path, node.name): (index, at)
        for index, (path, graph_module) in enumerate(graphs)
        for at, node in enumerate(graph_module.graph.nodes)
    }
    outer = operands(module)
    slots: dict[Site, int] = {}

    def rank(site: Site) -> tuple[int, ...]:
        return (*position[site.graph, site.node], slots.get(site, -1))

    sharing = Sharing(rank)
    for path, graph_module in graphs:
        for node in graph_module.graph.nodes:
            annotation = annotation_of(node)
            if annotation is None:
                continue
            out = Site(path, node.name)
            for index, (slot, spec) in enumerate(annotation.inputs):
                site = Site(path, node.name, slot)
                slots[site] = index
                sharing.require(site, spec, f"{annotation.template}: {slot}")
                graph, producer = resolve((path, read_slot(node, slot)), outer)
                sharing.flows(site, Site(graph, producer.name))
            if annotation.output is not None:
                sharing.require(out, annotation.output, f"{annotation.template}: output")
            for a, b in annotation.shares:
                why = f"{annotation.template}: {a or 'output'} = {b or 'output'}"
                sharing.same(Site(path, node.name, a), Site(path, node.name, b), why)
    return sharing


def _write_groups(path: str, node: Node, groups: Groups) -> bool:
    annotation = annotation_of(node)
    if annotation is None:
        return False
    slots = [slot for slot, _ in annotation.inputs]
    if annotation.output is not None:
        slots.append("")
    named = tuple((slot, str(groups.representative[Site(path, node.name, slot)])) for slot in slots)
    set_annotation(node, replace(annotation, groups=named))
    return named != annotation.groups
