"""Decide which sites share an observer, and thus their qparams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch.fx import GraphModule, Node

from quantfx.passes.annotate.sharing import Groups, Sharing
from quantfx.passes.errors import ShareConflict
from quantfx.passes.graph.boundary import operands, resolve
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import Annotation, annotated, set_annotation
from quantfx.passes.quant.spec import Concrete, SharedSpec, Spec
from quantfx.patterns.errors import did_you_mean


class Share(Pass):
    """Solve the sharing constraints of all annotations and write each site's group on its node.

    Sites share if a template demands it (``out = same(x)``), or if they hold the same tensor with
    equal specs: readers of one producer, or a reader and the output it reads. A tensor that control
    flow passes into a branch is the same tensor on both sides.
    """

    name = "share"
    requires = frozenset({"annotated"})
    provides = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Collect constraints from all graphs, solve, and write the groups."""
        groups = _constraints(module).solve()
        for path, graph_module in all_graphs(module):
            for node, annotation in annotated(graph_module.graph):
                _write_groups(path, node, annotation, groups)
        return PassResult(tuple(groups.told()), {"groups": len(groups.specs)})


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
        for node, annotation in annotated(graph_module.graph):
            out = Site(path, node.name)
            for index, (slot, spec) in enumerate(annotation.inputs):
                site = Site(path, node.name, slot)
                slots[site] = index
                _require(sharing, site, spec, annotation.template, position)
                if annotation.implicit:
                    graph, producer = resolve((path, read_slot(node, slot)), outer)
                    sharing.flows(site, Site(graph, producer.name))
            if annotation.output is not None:
                _require(sharing, out, annotation.output, annotation.template, position)
            for slot, other in annotation.shares:
                why = f"{annotation.template}: {slot or 'output'} = {_shorten(other, out)}"
                sharing.same(Site(path, node.name, slot), other, why)
    return sharing


def _require(
    sharing: Sharing, site: Site, spec: Spec, template: str, known: Mapping[tuple[str, str], object]
) -> None:
    what = site.slot or "output"
    if not isinstance(spec, SharedSpec):
        sharing.require(site, spec, f"{template}: {what}")
        return
    if (spec.site.graph, spec.site.node) not in known:
        raise ShareConflict(
            f"{site} is to share its qparams with {spec.site}, but the model has no node "
            f"'{spec.site.node}'{did_you_mean(spec.site.node, [name for _, name in known])}",
            rule="unknown-name",
            site=str(site),
        )
    sharing.same(site, spec.site, f"{template}: {what} = {_shorten(spec.site, site)}")


def _shorten(other: Site, site: Site) -> str:
    """Name ``other`` as seen from the node of ``site``."""
    same_node = (other.graph, other.node) == (site.graph, site.node)
    return (other.slot or "output") if same_node else str(other)


def _write_groups(path: str, node: Node, annotation: Annotation, groups: Groups) -> None:
    """Write each site's group, and replace shared specs by the specs found."""
    shares = list(annotation.shares)

    def resolve_slot(slot: str, spec: Spec) -> Concrete:
        if not isinstance(spec, SharedSpec):
            return spec
        shares.append((slot, spec.site))
        return _spec_of(Site(path, node.name, slot), spec, groups)

    inputs = tuple((slot, resolve_slot(slot, spec)) for slot, spec in annotation.inputs)
    output = None if annotation.output is None else resolve_slot("", annotation.output)
    slots = [slot for slot, _ in inputs] + ([] if output is None else [""])
    named = tuple((slot, str(groups.representative[Site(path, node.name, slot)])) for slot in slots)
    set_annotation(
        node,
        replace(annotation, inputs=inputs, output=output, shares=tuple(shares), groups=named),
    )


def _spec_of(site: Site, spec: SharedSpec, groups: Groups) -> Concrete:
    found = groups.specs.get(groups.representative[site])
    if found is None:
        raise ShareConflict(
            f"{site} is to share its qparams with {spec.site}, but nothing quantizes that site",
            rule="nothing-to-share",
            site=str(site),
            fix="annotate it with a spec of its own, or leave both float",
        )
    return found
