"""Explains every name of a quantized model, using one index that is built on first use."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch.fx import GraphModule

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.graph.editor import PROVENANCE_KEY
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.operator_name import operator_name
from quantfx.passes.graph.scopes import module_stack
from quantfx.passes.graph.silent_modules import SilentModule
from quantfx.passes.graph.source_line import source_line
from quantfx.passes.pipeline.vanished import Vanished
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.report.explain.explanation import (
    Explanation,
    MatchPart,
    ModeDecision,
    SharingLink,
    SharingPart,
    TemplateTry,
    TensorPart,
)
from quantfx.passes.report.explain.history import end_of, rules, steps_back, steps_forward
from quantfx.passes.report.explain.kernels import Kernels
from quantfx.passes.report.explain.places import Place, Places, find_places
from quantfx.passes.report.explain.remedies import remedies
from quantfx.passes.report.explain.tensors import tensor_parts
from quantfx.passes.report.explain.trail import Trail
from quantfx.passes.report.explain.verdict import (
    readers_of,
    verdict_of_float,
    verdict_of_match,
    verdict_of_other,
    why_nothing,
    why_silent,
)
from quantfx.passes.report.float_remedy import unmentioned
from quantfx.passes.report.report import Report

_NOBODY = "nothing read it any more"
_BOOKKEEPING = "arithmetic on sizes, or one of several results: there is nothing to quantize"


class Explainer:
    """Explains the names of one q/dq graph.

    Args:
        quantized: The q/dq graph.
        recipe: The recipe that it was quantized with.
        lowered: The lowered graph; None if the backend has no kernels.
        report: Report of the result, with the outcomes of planned sites.
    """

    def __init__(
        self, quantized: GraphModule, recipe: Recipe, lowered: GraphModule | None, report: Report
    ) -> None:
        self.report = report
        rules()  # read once, here: this imports the catalog of passes
        self._trail = Trail(quantized)
        self._places = find_places(quantized, recipe, self._trail)
        self._kernels = Kernels(lowered, self._places.operators, report)
        self._members = _members(self._places)

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites: existing nodes, vanished nodes, and modules without nodes."""
        return tuple(self._places.names.order)

    def find(self, name: str) -> list[str]:
        """Return the sites that ``name`` means.

        Raises:
            QuantfxError: the name has no site; names the nearest.
        """
        return self._places.names.find(name)

    def explain(self, site: str) -> Explanation:
        """Return what became of a site, from ``find`` or ``sites``."""
        places = self._places
        if site in places.silent:
            return self._of_silent(places.silent[site])
        if site in places.vanished:
            return self._of_vanished(site, places.vanished[site])
        place = places.nodes[site]
        return self._of_operator(site, place) if place.kind == "operator" else self._of_other(place)

    def _of_operator(self, site: str, place: Place) -> Explanation:
        kernel = self._kernels.of(place.path, place.node)
        match = self._match(place)
        tensors = tuple(tensor_parts(place.path, place.module, place.node, self._trail))
        known = replace(
            self._of_other(place),
            decision=self._decision(site),
            tries=self._tries(site),
            match=match,
            tensors=tensors,
            sharing=tuple(sharing_parts(self._trail, tensors)),
            kernel=kernel,
        )
        account = place.account
        if match is not None:
            verdict = verdict_of_match(site, match, kernel)
            advice = remedies(known, kernel.reason, self.report.backend)
            return replace(known, standing="quantized", verdict=verdict, remedies=advice)
        if account is None or account.standing == "bookkeeping":
            return replace(known, kernel=None, verdict=_BOOKKEEPING)
        nothing = why_nothing(account)
        told = account.reason or nothing
        reason = told or unmentioned(account.op)
        return replace(
            known,
            standing="float",
            verdict=verdict_of_float(reason, kernel),
            reason=reason,
            remedies=remedies(known, told, self.report.backend),
            idle=bool(nothing),
        )

    def _of_other(self, place: Place) -> Explanation:
        """Return the facts known about any node; for q/dq, inputs and constants that is all."""
        node = place.node
        site = str(Site(place.path, node.name))
        path, kind = (module_stack(node) or [("", "")])[-1]
        made_by = str(node.meta.get(PROVENANCE_KEY, ""))
        history = steps_back(
            self._trail,
            site,
            made_by=made_by,
            kind="constant" if place.kind == "constant" else "operator",
            reason="" if place.account is None else place.account.reason,
        )
        return Explanation(
            site=site,
            graph=place.path,
            node=node.name,
            kind=place.kind,
            op=operator_name(node),
            module=path,
            module_class=kind,
            code=source_line(node),
            standing="other",
            verdict=verdict_of_other(place.kind, place.path, node, made_by),
            history=history,
        )

    def _of_vanished(self, site: str, gone: Vanished) -> Explanation:
        history = steps_forward(self._trail, site)
        end = end_of(history)
        place = self._places.nodes.get(end)
        there = None if place is None else self.explain(end).verdict
        by = history[-1].by
        verdict = f"gone: {by} put {end} in its place, which is {there}"
        return Explanation(
            site=site,
            graph=gone.graph,
            node=gone.node,
            kind="vanished",
            op=gone.op,
            module=gone.module,
            module_class=gone.module_class,
            code=gone.code,
            standing="gone",
            verdict=verdict if there else f"gone: {by} removed it, as {_NOBODY}",
            history=history,
            tries=self._tries(site),
            decision=self._decision(site),
            reason=history[-1].text,
        )

    def _of_silent(self, silent: SilentModule) -> Explanation:
        readers = (
            str(Site(place.path, reader.name))
            for place in self._places.nodes.values()
            if place.kind == "constant" and str(place.node.target).startswith(f"{silent.path}.")
            for reader in readers_of(place.node)
        )
        reason = why_silent(silent, list(dict.fromkeys(readers)))
        return Explanation(
            site=silent.path,
            graph="",
            node="",
            kind="silent",
            op="",
            module=silent.path,
            module_class=silent.kind,
            code=None,
            standing="gone",
            verdict=f"no operator: {reason}",
            reason=reason,
        )

    def _match(self, place: Place) -> MatchPart | None:
        annotation = annotation_of(place.node)
        if annotation is None:
            return None
        anchor = str(Site(place.path, annotation.match))
        return MatchPart(
            template=annotation.template,
            mode=annotation.mode,
            anchor=anchor,
            members=self._members[anchor],
            kernel=annotation.kernel,
            reach=annotation.reach,
        )

    def _decision(self, site: str) -> ModeDecision | None:
        tried = self._trail.tried.get(site)
        if not tried:
            return None
        _, last = tried[-1]
        return ModeDecision(mode=last.mode, rule=last.rule)

    def _tries(self, site: str) -> tuple[TemplateTry, ...]:
        return tuple(
            TemplateTry(by=by, template=template, matched=not reason, reason=reason)
            for by, tried in self._trail.tried.get(site, ())
            for template, reason in tried.tries
        )


def _members(places: Places) -> dict[str, tuple[str, ...]]:
    """Return the operators of each match, by its anchor."""
    found: dict[str, list[str]] = {}
    for site, place in places.nodes.items():
        annotation = annotation_of(place.node)
        if annotation is not None:
            found.setdefault(str(Site(place.path, annotation.match)), []).append(site)
    return {anchor: tuple(sites) for anchor, sites in found.items()}


def sharing_parts(trail: Trail, tensors: Iterable[TensorPart]) -> Iterator[SharingPart]:
    """Yield the group of each tensor, if the group has another member."""
    for tensor in tensors:
        group = trail.groups.get(tensor.group)
        if group is not None:
            links = tuple(SharingLink(a=a, b=b, why=why) for a, b, why in group.links)
            yield SharingPart(
                name=group.name,
                slot=tensor.slot,
                members=group.members,
                chain=_chain(tensor.site, group.name, links),
                links=links,
            )


def _chain(start: str, end: str, links: tuple[SharingLink, ...]) -> tuple[SharingLink, ...]:
    """Return the links that lead from ``start`` to ``end``, each with the nearer site first."""
    around: dict[str, list[SharingLink]] = defaultdict(list)
    for link in links:
        around[link.a].append(link)
        around[link.b].append(SharingLink(a=link.b, b=link.a, why=link.why))
    came: dict[str, SharingLink | None] = {start: None}
    pending = deque([start])
    while pending and end not in came:
        for link in around[pending.popleft()]:
            if link.b not in came:
                came[link.b] = link
                pending.append(link.b)
    chain: list[SharingLink] = []
    step = came.get(end)
    while step is not None:
        chain.append(step)
        step = came[step.a]
    return tuple(reversed(chain))
