"""What became of every planned site: as data, one row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch.fx import GraphModule

from quantfx.passes.contract import PlannedMatch, planned_matches
from quantfx.passes.equal_sites import repeated_sites
from quantfx.passes.graphs import Site
from quantfx.passes.lower import Lower
from quantfx.passes.lowered import lowered_nodes
from quantfx.passes.pass_record import records_of
from quantfx.patterns.template import Mode, Reach

# What a site that has no kernel of its own runs as, without and with a compiler.
UNFUSED = "dq-op-q"
FUSED = "fused"
MERGED = "merged with its equal"


@dataclass(frozen=True)
class SiteOutcome:
    """One planned site.

    Attributes:
        site: The anchor in the q/dq graph.
        module: Dotted path of the user's module it comes from.
        kind: Operator name, e.g. ``conv2d``.
        mode: How it is quantized.
        reach: What its template promises: ``kernel``, ``fused`` or ``layout``.
        converted: Whether every quantized edge reads a dequantize.
        kernel: What computes it in the lowered module: a kernel, ``dq-op-q`` where the template
            promises none, ``""`` if it missed its kernel; None before lowering.
        compiled: The same of the compiled module, where ``fused`` takes the place of ``dq-op-q``.
        reason: Why it missed its kernel, or is not passed through as int8.
    """

    site: Site
    module: str
    kind: str
    mode: Mode
    reach: Reach
    converted: bool
    kernel: str | None = None
    compiled: str | None = None
    reason: str = ""


def planned_outcomes(quantized: GraphModule) -> tuple[SiteOutcome, ...]:
    """Return every planned site of a q/dq graph, before lowering."""
    return tuple(_planned(match) for match in planned_matches(quantized))


def lowered_outcomes(quantized: GraphModule, lowered: GraphModule) -> tuple[SiteOutcome, ...]:
    """Return every planned site of a q/dq graph with the kernel that took it.

    Args:
        quantized: The q/dq graph.
        lowered: What the lowering pipeline made of it.
    """
    kernels = {each.site: each.kernel for _, each in lowered_nodes(lowered)}
    reasons = {
        Site(remark.graph, remark.node): remark.message
        for record in records_of(lowered)
        if record.name == Lower.name
        for remark in record.remarks
    }
    repeated = repeated_sites(quantized)
    return tuple(
        _lowered(_planned(match), kernels, reasons, match.site in repeated)
        for match in planned_matches(quantized)
    )


def compiled_outcomes(
    outcomes: tuple[SiteOutcome, ...], kernels: Mapping[Site, str]
) -> tuple[SiteOutcome, ...]:
    """Return ``outcomes`` with the kernels that the compiled module calls.

    Args:
        outcomes: Of lowering.
        kernels: Site -> kernel, as found in the compiler's graph.
    """
    return tuple(_compiled(outcome, kernels) for outcome in outcomes)


def missed(outcomes: tuple[SiteOutcome, ...]) -> list[SiteOutcome]:
    """Return the sites that did not reach what their template promises."""
    return [each for each in outcomes if "" in (each.kernel, each.compiled)]


def _planned(match: PlannedMatch) -> SiteOutcome:
    annotation = match.annotation
    return SiteOutcome(
        match.site,
        match.module,
        annotation.kind,
        annotation.mode,
        annotation.reach,
        converted=not match.unconverted,
    )


def _lowered(
    outcome: SiteOutcome, kernels: Mapping[Site, str], reasons: Mapping[Site, str], repeated: bool
) -> SiteOutcome:
    kernel = kernels.get(outcome.site)
    if kernel is None and repeated and outcome.site not in reasons:
        kernel = MERGED
    if kernel is None:
        kernel = "" if outcome.reach == "kernel" else UNFUSED
    reason = reasons.get(outcome.site, "")
    if not kernel and not reason:
        reason = "the lowering pipeline did not look at it"
    return replace(outcome, kernel=kernel, reason=reason)


def _compiled(outcome: SiteOutcome, kernels: Mapping[Site, str]) -> SiteOutcome:
    if outcome.reach == "kernel" and outcome.kernel not in ("", MERGED):
        found = kernels.get(outcome.site, "")
        reason = "" if found else "the compiler's graph has no kernel call for it"
        return replace(outcome, compiled=found, reason=reason)
    return replace(outcome, compiled=FUSED if outcome.kernel == UNFUSED else outcome.kernel)
