"""What became of every planned site, as data with one row per site."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, TypeAlias

from torch.fx import GraphModule, Node

from quantfx.passes.graph.aliasing import writes_to
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.remark import MergedSite, Remark
from quantfx.passes.lower.lower import Lower
from quantfx.passes.pipeline.permits import LEFT_FLOAT
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.quant.lowered import lowered_nodes, lowered_of
from quantfx.passes.report.contract import PlannedMatch, planned_matches
from quantfx.patterns.schema import is_operator_call
from quantfx.patterns.template import Mode, Reach

# What a site without its own kernel runs as, without and with a compiler.
UNFUSED = "dq-op-q"
REFERENCE = "reference"
MERGED = "merged with its equal"
FUSED = "fused"
FOLDED = "folded to a constant"


Status: TypeAlias = Literal["planned", "kernel", "merged", "float", "missed"]


@dataclass(frozen=True)
class SiteOutcome:
    """One planned site.

    Attributes:
        site: The anchor in the q/dq graph.
        module: Dotted path of the user's module it comes from.
        kind: Operator name, e.g. ``conv2d``.
        mode: How it is quantized.
        reach: The reach of its template: ``kernel``, ``loop``, ``fused``, ``layout`` or
            ``reference``.
        converted: Whether every quantized edge reads a dequantize.
        kernel: What computes it in the lowered module: a kernel, ``dq-op-q`` if the template names
            none, ``""`` if it missed its kernel; None before lowering.
        compiled: The same for the compiled module, with ``fused`` in place of ``dq-op-q``.
        reason: Why it missed its kernel, is not passed through as int8, or is in no prepared plan
            if the backend has plans; or that float operators would be faster.
        status: ``planned`` before lowering; then ``kernel``, ``merged`` with an equal call,
            ``float`` where its template promises no kernel, or ``missed``.
    """

    site: Site
    module: str
    kind: str
    _: KW_ONLY
    mode: Mode
    reach: Reach
    converted: bool
    kernel: str | None = None
    compiled: str | None = None
    reason: str = ""
    status: Status = "planned"


# Passes whose remarks say why a site is lowered the way it is; the deciding pass comes last.
_WHO_SAYS_WHY = (("form-regions", "not in a prepared plan: "), (Lower.name, ""))


def planned_outcomes(quantized: GraphModule) -> tuple[SiteOutcome, ...]:
    """Return every planned site of a q/dq graph, before lowering."""
    return tuple(_outcome_of_plan(match) for match in planned_matches(quantized))


def lowered_outcomes(quantized: GraphModule, lowered: GraphModule) -> tuple[SiteOutcome, ...]:
    """Return every planned site of a q/dq graph with the kernel that took it.

    Args:
        quantized: The q/dq graph.
        lowered: The lowered graph.
    """
    kernels = {each.site: each.kernel for _, each in lowered_nodes(lowered)}
    merged = {each.site for each in remarks_of(lowered, MergedSite)}
    reasons = {
        Site(each.graph, each.node): f"{said if each.kind == 'missed' else ''}{each.message}"
        for name, said in _WHO_SAYS_WHY
        for each in remarks_of(lowered, Remark, by=name)
    }
    planned = (_outcome_of_plan(match) for match in planned_matches(quantized))
    return tuple(_add_kernel(outcome, kernels, merged, reasons) for outcome in planned)


def constant_sites(lowered: GraphModule) -> frozenset[Site]:
    """Return the sites of the top graph that depend on no input: a compiler computes them once."""
    varying: set[Node] = set()
    found: set[Site] = set()
    for node in lowered.graph.nodes:
        inputs = node.all_input_nodes
        constant = node.op == "get_attr" or (is_operator_call(node) and bool(inputs))
        if not constant or not varying.isdisjoint(inputs) or writes_to(node):
            varying.add(node)
        elif (call := lowered_of(node)) is not None:
            found.add(call.site)
    return frozenset(found)


def compiled_outcomes(
    outcomes: tuple[SiteOutcome, ...], kernels: Mapping[Site, str], lowered: GraphModule
) -> tuple[SiteOutcome, ...]:
    """Return ``outcomes`` with the kernels that the compiled module calls.

    Args:
        outcomes: Outcomes of lowering.
        kernels: Site -> kernel, as found in the compiler's graph.
        lowered: The graph that was compiled.
    """
    constant = dict.fromkeys(constant_sites(lowered), FOLDED)
    return tuple(_add_compiled(outcome, constant | dict(kernels)) for outcome in outcomes)


def with_kernels_of(
    lowered: tuple[SiteOutcome, ...], compiled: tuple[SiteOutcome, ...]
) -> tuple[SiteOutcome, ...]:
    """Return the sites of a compiled module with the kernels that run without a compiler.

    Args:
        lowered: Outcomes of the graph that runs without a compiler.
        compiled: Outcomes of the same sites, lowered for the compiler.
    """
    pairs = zip(lowered, compiled, strict=True)
    return tuple(replace(after, kernel=before.kernel) for before, after in pairs)


def missed_sites(outcomes: tuple[SiteOutcome, ...]) -> list[SiteOutcome]:
    """Return the sites that did not reach what their template promises."""
    return [each for each in outcomes if "" in (each.kernel, each.compiled)]


def _outcome_of_plan(match: PlannedMatch) -> SiteOutcome:
    annotation = match.annotation
    return SiteOutcome(
        match.site,
        match.module,
        annotation.kind,
        mode=annotation.mode,
        reach=annotation.reach,
        converted=not match.unconverted,
    )


def _add_kernel(
    outcome: SiteOutcome,
    kernels: Mapping[Site, str],
    merged: Collection[Site],
    reasons: Mapping[Site, str],
) -> SiteOutcome:
    reason = reasons.get(outcome.site, "")
    if outcome.site in merged:
        return replace(outcome, status="merged", kernel=MERGED, reason=reason)
    if outcome.site in kernels:
        return replace(outcome, status="kernel", kernel=kernels[outcome.site], reason=reason)
    if outcome.reach in ("kernel", "loop") and reason != LEFT_FLOAT:
        reason = reason or "the lowering pipeline did not look at it"
        return replace(outcome, status="missed", kernel="", reason=reason)
    kernel = REFERENCE if outcome.reach == "reference" else UNFUSED
    return replace(outcome, status="float", kernel=kernel, reason=reason)


def _add_compiled(outcome: SiteOutcome, kernels: Mapping[Site, str]) -> SiteOutcome:
    if outcome.reach == "kernel" and outcome.status == "kernel":
        found = kernels.get(outcome.site, "")
        reason = outcome.reason if found else "the compiler's graph has no kernel call for it"
        return replace(outcome, compiled=found, reason=reason)
    return replace(outcome, compiled=FUSED if outcome.kernel == UNFUSED else outcome.kernel)
