"""Create the observer of every sharing group, and show them to the quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.fx import GraphModule

from quantfx.compat.terms.annotated_edges import AnnotatedEdges
from quantfx.compat.terms.errors import foreign_code
from quantfx.compat.terms.foreign_spec import ChosenModule, ForeignSpec
from quantfx.compat.terms.specs import EdgeOrNode
from quantfx.compat.terms.subgraphs import quantizable_graphs
from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import Annotation, annotated, set_annotation
from quantfx.passes.quant.spec import QuantSpec, Spec


@dataclass(frozen=True)
class CreateObservers(Pass):
    """Puts the observing module into each site's spec; sites of one group get the same module.

    Attributes:
        quantizer: Its ``prepare_obs_or_fq_callback`` may replace any of them.
    """

    quantizer: Any

    name = "create-observers"
    requires = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Create observers by group, derived ones last, then call back graph by graph."""
        graphs = list(quantizable_graphs(module))
        edges = {path: AnnotatedEdges(path, graph_module) for path, graph_module in graphs}
        observers = _Observers(dict(_find_wanted(graphs)))
        for path, graph_module in graphs:
            observers.create(graph_module, edges[path])
        names: dict[nn.Module, str] = {}
        for path, graph_module in graphs:
            chosen = self._choose_observers(graph_module, edges[path], observers)
            for node, annotation in annotated(graph_module.graph):
                site = Site(path, node.name)
                set_annotation(node, _put_modules(annotation, site, chosen, names))
        return PassResult(stats={"observers": len(names)})

    def _choose_observers(
        self, module: GraphModule, edges: AnnotatedEdges, observers: _Observers
    ) -> dict[Site, nn.Module]:
        """Return the observer of every site of one graph, after the quantizer's callback."""
        shown: dict[EdgeOrNode, nn.Module] = {
            edge: observers.of(sites[0]) for edge, sites in edges.sites()
        }
        callback = getattr(self.quantizer, "prepare_obs_or_fq_callback", None)
        if callback is not None:
            with foreign_code():
                callback(module, shown)
        return {
            site: observer
            for edge, sites in edges.sites()
            if (observer := shown.get(edge)) is not None
            for site in sites
        }


class _Observers:
    """The observers by group.

    Args:
        wanted: Maps a site to its group and the maker of the group's observer.
    """

    def __init__(self, wanted: dict[Site, tuple[str, ForeignSpec]]) -> None:
        self._wanted = wanted
        self.by_group: dict[str, nn.Module] = {}

    def create(self, module: GraphModule, edges: AnnotatedEdges) -> None:
        """Create the observers of one graph."""
        pending = [site for _, sites in edges.sites() for site in sites]
        for site in sorted(pending, key=lambda each: self._wanted[each][1].is_derived):
            group, maker = self._wanted[site]
            if group not in self.by_group:
                derived_from = getattr(maker.spec, "derived_from", ())
                sources = [self.of(edges.site(edge)) for edge in derived_from]
                with foreign_code():
                    self.by_group[group] = maker.make(sources)

    def of(self, site: Site) -> nn.Module:
        """Return the observer of ``site``.

        Raises:
            PipelineError: the site has no observer.
        """
        group = self._wanted[site][0] if site in self._wanted else ""
        if group not in self.by_group:
            message = f"{site} has no observer to derive from"
            fix = "annotate it with a spec"
            raise PipelineError(message, rule="not-derivable", site=str(site), fix=fix)
        return self.by_group[group]


def _find_wanted(
    graphs: list[tuple[str, GraphModule]],
) -> Iterator[tuple[Site, tuple[str, ForeignSpec]]]:
    for path, graph_module in graphs:
        for node, annotation in annotated(graph_module.graph):
            groups = dict(annotation.groups)
            output = [("", annotation.output)] if annotation.output is not None else []
            for slot, spec in [*annotation.inputs, *output]:
                yield Site(path, node.name, slot), (groups[slot], _maker(spec))


def _maker(spec: Spec) -> ForeignSpec:
    if isinstance(spec, QuantSpec) and isinstance(spec.observer, ForeignSpec):
        return spec.observer
    message = f"'{spec}' does not come from a quantizer"
    fix = "run annotate-with and share"
    raise PipelineError(message, rule="pass-order", site=str(spec), fix=fix)


def _put_modules(
    annotation: Annotation, output: Site, chosen: dict[Site, nn.Module], names: dict[nn.Module, str]
) -> Annotation | None:
    """Return ``annotation`` with modules for specs, without the sites that got no module."""

    def given(slot: str, spec: Spec) -> tuple[str, Spec] | None:
        site = output._replace(slot=slot)
        if site not in chosen or not isinstance(spec, QuantSpec):
            return None
        names.setdefault(chosen[site], str(site))
        return slot, replace(spec, observer=ChosenModule(chosen[site]))

    inputs = [found for slot, spec in annotation.inputs if (found := given(slot, spec))]
    result = given("", annotation.output) if annotation.output is not None else None
    slots = [slot for slot, _ in inputs] + ([""] if result else [])
    return replace(
        annotation,
        inputs=tuple(inputs),
        output=result[1] if result else None,
        groups=tuple((slot, names[chosen[output._replace(slot=slot)]]) for slot in slots),
    )
