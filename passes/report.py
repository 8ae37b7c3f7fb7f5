"""What was planned, converted and lowered, as data that prints itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from torch import nn
from torch.fx import GraphModule

from quantfx.passes.contract import planned_matches, skipped, uncovered
from quantfx.passes.graphs import Site
from quantfx.passes.pass_record import records_of
from quantfx.passes.recipe import Recipe


@dataclass(frozen=True)
class OpRow:
    """One kind of operator.

    Attributes:
        kind: Operator name, e.g. ``conv2d``.
        planned: Matches of a template.
        converted: Planned matches whose every quantized edge reads a dequantize.
        lowered: Planned matches that reached what their template names; None before lowering.
        reach: ``kernel``, ``fused`` or ``layout``: what the templates promise.
        kernels: Kernel -> matches that reached it.
        mode: How they are quantized, e.g. ``static``.
    """

    kind: str
    planned: int
    converted: int
    lowered: int | None
    reach: str
    kernels: Mapping[str, int] = field(default_factory=dict[str, int])
    mode: str = "static"

    @property
    def label(self) -> str:
        """The kind, with its mode where that is not static."""
        return self.kind if self.mode == "static" else f"{self.kind}, {self.mode}"


@dataclass(frozen=True)
class SkippedSite:
    """An operator that a template mentions but that stays float, and why."""

    site: str
    op: str
    reason: str


@dataclass(frozen=True)
class PassTime:
    """Wall time and counts of one pass."""

    name: str
    seconds: float
    stats: Mapping[str, int]


@dataclass(frozen=True)
class Report:
    """The whole story of one quantization.

    Attributes:
        backend: Name of the recipe.
        target: Name of the instruction set, or ``any``.
        policy: How weights and activations are kept from saturating there.
        rows: Per kind of operator.
        skipped: Operators that a template mentions but that stay float.
        uncovered: Operator -> count, of those no template mentions.
        passes: In the order they ran.
        float_bytes: Tensors of the captured graph.
        quantized_bytes: Tensors of the q/dq graph.
    """

    backend: str
    target: str
    policy: str
    rows: tuple[OpRow, ...]
    skipped: tuple[SkippedSite, ...]
    uncovered: Mapping[str, int]
    passes: tuple[PassTime, ...]
    float_bytes: int
    quantized_bytes: int

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
        """Lowered matches of every kind; None before lowering."""
        counts = [row.lowered for row in self.rows if row.lowered is not None]
        return sum(counts) if len(counts) == len(self.rows) else None

    def with_lowered(self, rows: tuple[OpRow, ...]) -> Report:
        """Return the report with rows that say what was lowered."""
        return replace(self, rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        console = Console(width=100, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the tables."""
        yield f"backend {self.backend}, target {self.target}: {self.policy}"
        yield _rows_table(self)
        if self.skipped:
            yield _skipped_table(self.skipped)
        if self.uncovered:
            others = ", ".join(f"{op} x{count}" for op, count in self.uncovered.items())
            yield f"float, no template: {others}"
        yield _passes_line(self.passes)
        yield (
            f"tensors: {self.float_bytes / 2**20:.1f} MiB float -> "
            f"{self.quantized_bytes / 2**20:.1f} MiB quantized"
        )


def make_report(
    graph: GraphModule, quantized: GraphModule, recipe: Recipe, target: str, policy: str
) -> Report:
    """Return the report of a conversion, before lowering.

    Args:
        graph: As captured.
        quantized: The q/dq graph made of it.
        recipe: The patterns and specs that were used.
        target: Name of the instruction set, or ``any``.
        policy: How saturation is avoided there.
    """
    return Report(
        recipe.name,
        target,
        policy,
        _rows(quantized),
        tuple(
            SkippedSite(str(Site(remark.graph, remark.node)), remark.op, remark.message)
            for remark in skipped(quantized, recipe)
        ),
        uncovered(quantized, recipe),
        tuple(PassTime(r.name, r.seconds, dict(r.stats)) for r in records_of(quantized)),
        tensor_bytes(graph),
        tensor_bytes(quantized),
    )


def tensor_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers of ``module``."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _rows(module: GraphModule) -> tuple[OpRow, ...]:
    planned: Counter[tuple[str, str, str]] = Counter()
    converted: Counter[tuple[str, str, str]] = Counter()
    for match in planned_matches(module):
        key = (match.annotation.kind, match.annotation.reach, match.annotation.mode)
        planned[key] += 1
        converted[key] += not match.unconverted
    return tuple(
        OpRow(kind, count, converted[kind, reach, mode], None, reach, mode=mode)
        for (kind, reach, mode), count in planned.items()
    )


def _rows_table(report: Report) -> Table:
    table = Table("op", "planned", "converted", "lowered", "reaches")
    for column in table.columns[1:4]:
        column.justify = "right"
    for row in report.rows:
        kernels = ", ".join(f"{kernel} x{count}" for kernel, count in row.kernels.items())
        lowered = "-" if row.lowered is None else str(row.lowered)
        table.add_row(
            row.label, str(row.planned), str(row.converted), lowered, kernels or row.reach
        )
    total = "-" if report.lowered is None else str(report.lowered)
    table.add_section()
    table.add_row("all", str(report.planned), str(report.converted), total, "")
    return table


def _skipped_table(skipped_sites: tuple[SkippedSite, ...], most: int = 12) -> Table:
    table = Table("stays float", "op", "because")
    for site in skipped_sites[:most]:
        table.add_row(site.site, site.op, site.reason)
    if len(skipped_sites) > most:
        table.add_row(f"and {len(skipped_sites) - most} more", "", "see report.skipped")
    return table


def _passes_line(passes: tuple[PassTime, ...]) -> str:
    times = ", ".join(f"{each.name} {each.seconds * 1e3:.0f}" for each in passes)
    return f"passes (ms): {times}"
