"""The report: what was planned, converted and lowered, as data that prints itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from torch import nn
from torch.fx import GraphModule

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.convert.scale_remarks import scale_remarks
from quantfx.passes.graph.graphs import Site, all_graphs, constant
from quantfx.passes.graph.remark import ModelRemark, RuleRemark, ScaleRemark
from quantfx.passes.pipeline.record import records_of, remarks_of
from quantfx.passes.quant.nibbles import holds_nibbles
from quantfx.passes.report.contract import count_uncovered, find_skipped
from quantfx.passes.report.mostly_float import Balance, add_reached, headline
from quantfx.passes.report.outcome import SiteOutcome, planned_outcomes
from quantfx.passes.report.text import as_text, overview
from quantfx.passes.report.work import OperatorWork, work_of


@dataclass(frozen=True, kw_only=True)
class OpRow:
    """One kind of operator.

    Attributes:
        kind: Operator name, e.g. ``conv2d``.
        planned: Matches of a template.
        converted: Planned matches in which every quantized edge reads a dequantize.
        lowered: Planned matches that reached what their template names in the lowered module,
            which runs without a compiler; None if the backend has no kernels.
        reach: ``kernel``, ``loop``, ``fused`` or ``layout``, as the templates promise.
        kernels: Kernel -> matches that reached it in the lowered module.
        mode: How they are quantized, e.g. ``static``.
        compiled: Planned matches that did so in the compiled module; None before compiling.
        compiled_kernels: Kernel -> matches that reached it in the compiled module.
    """

    kind: str
    planned: int
    converted: int
    lowered: int | None
    reach: str
    kernels: Mapping[str, int] = field(default_factory=dict[str, int])
    mode: str = "static"
    compiled: int | None = None
    compiled_kernels: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def label(self) -> str:
        """The kind, with its mode unless that is static."""
        return self.kind if self.mode == "static" else f"{self.kind}, {self.mode}"


@dataclass(frozen=True)
class SkippedSite:
    """An operator that a template mentions but that stays float, with the reason."""

    site: str
    op: str
    reason: str


@dataclass(frozen=True)
class PassTime:
    """Wall time and counts of one pass."""

    name: str
    seconds: float
    stats: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything about one quantization.

    Attributes:
        backend: Name of the recipe.
        target: Name of the instruction set, or ``any``.
        policy: How saturation of weights and activations is avoided on the target.
        rows: One row per kind of operator.
        sites: Every planned site with its kernels, or the reason why it has none.
        skipped: Operators that a template mentions but that stay float.
        uncovered: Operator of any library that no template mentions -> count.
        work: Multiply-accumulates and weights of each operator that has, or may have, any.
        passes: The passes in the order they ran.
        float_bytes: Bytes of tensors in the captured graph.
        quantized_bytes: Bytes of tensors in the q/dq graph, as files hold them.
        unverified: What could not be tried here, e.g. ``no XPU``; empty if nothing.
        scales: Tensors whose scale does not fit their values, with the reason.
        unused_rules: Rules of the config that select, decide or change nothing, with the reason.
        notes: What passes say of the whole model, e.g. why they did not change it at all.
    """

    backend: str
    target: str
    policy: str
    rows: tuple[OpRow, ...]
    sites: tuple[SiteOutcome, ...]
    skipped: tuple[SkippedSite, ...]
    uncovered: Mapping[str, int]
    work: tuple[OperatorWork, ...]
    passes: tuple[PassTime, ...]
    float_bytes: int
    quantized_bytes: int
    unverified: str = ""
    scales: tuple[ScaleRemark, ...] = ()
    unused_rules: tuple[RuleRemark, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def planned(self) -> int:
        """Planned matches of every kind."""
        return sum(row.planned for row in self.rows)

    @property
    def converted(self) -> int:
        """Converted matches of every kind."""
        return sum(row.converted for row in self.rows)

    @property
    def lowered(self) -> int | None:
        """Lowered matches of every kind; None if the backend has no kernels."""
        return _total([row.lowered for row in self.rows])

    @property
    def compiled(self) -> int | None:
        """Matches of every kind that reached their kernels in the compiled module."""
        return _total([row.compiled for row in self.rows])

    @property
    def balance(self) -> Balance:
        """How much of the multiply-accumulates and weights is quantized."""
        return Balance.of(add_reached(self.work, self.sites))

    @property
    def headline(self) -> str:
        """What to know first: that most stays float, why, and what would change it.

        Empty if most is quantized.
        """
        work = add_reached(self.work, self.sites)
        return headline(work, backend=self.backend, planned=self.planned)

    def with_compiled(self, sites: tuple[SiteOutcome, ...]) -> Report:
        """Return the report with the outcomes of sites in the compiled module."""
        return replace(self, rows=rows_of(sites), sites=sites)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"headline": self.headline, **asdict(self)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Report:
        """Return the report from the plain data of ``to_dict``, even after a round trip via JSON.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is unknown.
        """
        sites: list[dict[str, Any]] = data["sites"]
        work: list[dict[str, Any]] = data["work"]
        fields: dict[str, Any] = {
            "rows": tuple(OpRow(**row) for row in data["rows"]),
            "sites": tuple(SiteOutcome(**(each | _site(each))) for each in sites),
            "skipped": tuple(SkippedSite(**site) for site in data["skipped"]),
            "work": tuple(OperatorWork(**(each | _site(each))) for each in work),
            "passes": tuple(PassTime(**each) for each in data["passes"]),
            "scales": tuple(ScaleRemark(**each) for each in data.get("scales", ())),
            "unused_rules": tuple(RuleRemark(**each) for each in data["unused_rules"]),
            "notes": tuple(data.get("notes", ())),
        }
        stored = {key: value for key, value in data.items() if key != "headline"}
        return Report(**(stored | fields))

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def text(self, *, full: bool = False) -> str:
        """Return the report as text.

        Args:
            full: Whether to print every operator with its reason, and every pass. Otherwise one
                screen: where the multiply-accumulates and weight bytes are, and why large operators
                stay float.
        """
        return as_text(self, full=full)

    def __str__(self) -> str:
        return self.text()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print what matters."""
        yield from overview(self)


def _site(data: dict[str, Any]) -> dict[str, Any]:
    return {"site": Site(*data["site"])}


def make_report(
    graph: GraphModule,
    quantized: GraphModule,
    recipe: Recipe,
    *,
    target: str,
    policy: str,
    sites: tuple[SiteOutcome, ...] | None = None,
    unverified: str = "",
) -> Report:
    """Return the report of a conversion.

    Args:
        graph: The captured graph.
        quantized: The q/dq graph made from it.
        recipe: The patterns and specs that were used.
        target: Name of the instruction set, or ``any``.
        policy: How saturation is avoided on the target.
        sites: Outcome of every planned site; by default, as before lowering.
        unverified: What could not be tried here.
    """
    outcomes = planned_outcomes(quantized) if sites is None else sites
    # Files store two 4-bit values per byte.
    spared = {
        id(value): value.numel() // 2
        for _, graph_module in all_graphs(quantized)
        for node in graph_module.graph.find_nodes(op="get_attr")
        if holds_nibbles(node) and (value := constant(graph_module, node)) is not None
    }
    return Report(
        backend=recipe.name,
        target=target,
        policy=policy,
        rows=rows_of(outcomes),
        sites=outcomes,
        skipped=tuple(
            SkippedSite(str(Site(remark.graph, remark.node)), remark.op, remark.message)
            for remark in find_skipped(quantized, recipe)
        ),
        uncovered=count_uncovered(quantized, recipe),
        work=work_of(quantized, recipe),
        passes=tuple(PassTime(r.name, r.seconds, dict(r.stats)) for r in records_of(quantized)),
        float_bytes=tensor_bytes(graph),
        quantized_bytes=tensor_bytes(quantized) - sum(spared.values()),
        unverified=unverified,
        scales=scale_remarks(quantized),
        unused_rules=tuple(remarks_of(quantized, RuleRemark)),
        notes=_notes(quantized),
    )


def _notes(quantized: GraphModule) -> tuple[str, ...]:
    found: dict[str, list[str]] = {}  # reason -> passes
    for record in records_of(quantized):
        for remark in record.remarks:
            if isinstance(remark, ModelRemark):
                found.setdefault(remark.reason, []).append(record.name)
    return tuple(f"{', '.join(names)}: {reason}" for reason, names in found.items())


def tensor_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers of ``module``."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def rows_of(sites: tuple[SiteOutcome, ...]) -> tuple[OpRow, ...]:
    """Count sites by operator, promise and mode, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[SiteOutcome]] = {}
    for site in sites:
        groups.setdefault((site.kind, site.reach, site.mode), []).append(site)
    return tuple(_row(key, group) for key, group in groups.items())


def _row(key: tuple[str, str, str], sites: list[SiteOutcome]) -> OpRow:
    kind, reach, mode = key
    lowered, kernels = _count_reached([site.kernel for site in sites])
    compiled, compiled_kernels = _count_reached([site.compiled for site in sites])
    converted = sum(site.converted for site in sites)
    return OpRow(
        kind=kind,
        planned=len(sites),
        converted=converted,
        lowered=lowered,
        reach=reach,
        kernels=kernels,
        mode=mode,
        compiled=compiled,
        compiled_kernels=compiled_kernels,
    )


def _count_reached(kernels: list[str | None]) -> tuple[int | None, dict[str, int]]:
    """Count kernels; None while some site has no outcome yet."""
    counts = Counter(kernel for kernel in kernels if kernel)
    return (None if None in kernels else sum(counts.values())), dict(counts)


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
