"""What computes an operator, without a compiler and with one."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule, Node

from quantfx.passes.graph.clone import HoldsGraph
from quantfx.passes.graph.graphs import Site, all_graphs, module_calls
from quantfx.passes.graph.operator_name import operator_name
from quantfx.passes.graph.remark import MergedSite
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.lowered import Lowered, lowered_nodes
from quantfx.passes.report.explain.explanation import KernelPart
from quantfx.passes.report.report import Report

_COMPILED = "float code of the compiler"


class Kernels:
    """Finds what computes the operators of a q/dq graph.

    Args:
        lowered: The lowered graph; None if the backend has no kernels.
        operators: Sites of the model's operators.
        report: Report with the outcomes of planned sites.
    """

    def __init__(
        self, lowered: GraphModule | None, operators: frozenset[str], report: Report
    ) -> None:
        self._lowered = lowered
        self._operators = operators
        self._outcomes = {str(each.site): each for each in report.sites}
        self._compiled = report.compiled is not None
        self._calls: dict[str, Lowered] = {}
        self._regions: dict[str, str] = {}
        self._merged: dict[str, str] = {}
        if lowered is not None:
            self._calls = {str(each.site): each for _, each in lowered_nodes(lowered)}
            self._regions = _regions(lowered)
            self._merged = _merged(lowered)
        # Compiled code may call the regions, or operators in their place.
        planned = [each for site, each in self._outcomes.items() if site in self._regions]
        self._keeps_regions = any(each.compiled == each.kernel for each in planned)

    def of(self, path: str, node: Node) -> KernelPart:
        """Return what computes ``node``, an operator of the model in the graph at ``path``."""
        site = str(Site(path, node.name))
        annotation = annotation_of(node)
        anchor = site if annotation is None else str(Site(path, annotation.match))
        region = self._regions.get(site, "")
        outcome = None if annotation is None else self._outcomes.get(anchor)
        if outcome is None:
            eager = None if self._lowered is None else operator_name(node)
            kept = region and self._keeps_regions
            code = (eager if kept else _COMPILED) if self._compiled else None
            return KernelPart(site=site, status="float", eager=eager, compiled=code, region=region)
        merged = outcome.status == "merged"
        call = self._calls.get(anchor)
        covered = () if call is None else (str(Site(path, name)) for name in call.covers)
        return KernelPart(
            site=anchor,
            status=outcome.status,
            eager=outcome.kernel,
            compiled=outcome.compiled,
            region=region,
            with_others=tuple(each for each in covered if each in self._operators and each != site),
            reason=outcome.reason or (self._merged.get(anchor, "") if merged else ""),
        )


def _regions(lowered: GraphModule) -> dict[str, str]:
    """Return node -> the region call that computes it."""
    return {
        str(Site(path, inner.name)): node.name
        for path, graph_module in all_graphs(lowered)
        for node, called in module_calls(graph_module, nn.Module)
        if isinstance(called, HoldsGraph)
        for inner in called.graph.graph.nodes
        if inner.op == "call_function"
    }


def _merged(lowered: GraphModule) -> dict[str, str]:
    """Return merged site -> the site that it was merged with."""
    merged = remarks_of(lowered, MergedSite)
    return {str(each.site): f"{each.into} computes the same" for each in merged}
