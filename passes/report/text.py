"""A report as text: what matters on one screen, and all of it on request."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantfx.passes.report.float_remedy import remedy_of
from quantfx.passes.report.folded_table import folded_table
from quantfx.passes.report.mostly_float import (
    Balance,
    add_reached,
    by_cause,
    matters,
    reason_for,
)
from quantfx.passes.report.outcome import SiteOutcome, missed_sites
from quantfx.passes.report.work import OperatorWork, drop_names

if TYPE_CHECKING:
    from quantfx.passes.report.report import OpRow, PassTime, Report, SkippedSite

_WIDTH = 100
_CAUSES = 6  # rows of what stays float
_SHORT = 6  # rows of other tables
_OPERATORS = 8
_ALL = "report.text(full=True)"
# Operators that compute nothing, with the remark on them.
MOVES_VALUES = "it moves values and computes nothing"
MOVES = (
    "reshape", "view", "transpose", "permute", "t", "select", "slice", "squeeze", "unsqueeze",
    "expand", "contiguous", "unflatten", "flatten", "split", "split_with_sizes", "chunk",
    "unbind", "clone", "detach", "alias", "to", "_to_copy", "lift_fresh_copy", "cat", "stack",
)  # fmt: skip
_SLOT = re.compile(r"\b\w+(?=\.[a-z])")  # what has it
_NUMBERED = re.compile(r"\b[a-z]\w*_\d+\b")  # a node's name


def as_text(report: Report, *, full: bool) -> str:
    """Return the report as text for 100 columns.

    Args:
        report: What to print.
        full: Every operator, reason and pass; otherwise what costs most.
    """
    console = Console(width=_WIDTH, color_system=None)
    with console.capture() as capture:
        print_report(console, report, full=full)
    return capture.get().rstrip()


def print_report(console: Console, report: Report, *, full: bool = False) -> None:
    """Print a report as wide as the ``console`` is.

    Args:
        console: Where to print.
        report: What to print.
        full: Every operator, reason and pass; otherwise what costs most.
    """
    console.print(Group(*(everything(report) if full else overview(report))))


def overview(report: Report) -> Iterator[RenderableType]:
    """Yield what matters: where the multiply-accumulates and bytes are, and which stay float."""
    yield from _head(report)
    work = add_reached(report.work, report.sites)
    if balance := str(report.balance):
        yield Text(balance)
    yield _rows_table(report, work)
    if short := missed_sites(report.sites):
        yield _missed_table(short, _SHORT)
    if table := _causes_table(report, work, _CAUSES):
        yield table
    yield from _unused_rules(report)
    if report.scales:
        yield _scales_table(report, _SHORT)
    if others := _small_operators(report):
        yield Text(f"float, without weights or products: {others}")
    yield Text(_sizes(report))
    yield Text(f"{_time(report.passes)}. Every operator, reason and pass: {_ALL}, or --full")


def everything(report: Report) -> Iterator[RenderableType]:
    """Yield everything in the report, with float operators grouped by reason."""
    yield from _head(report)
    work = add_reached(report.work, report.sites)
    yield _rows_table(report, work)
    if short := missed_sites(report.sites):
        yield _missed_table(short, len(short))
    if table := _causes_table(report, work):
        yield table
    yield from _unused_rules(report)
    if report.skipped:
        yield _reasons_table(report)
    if report.scales:
        yield _scales_table(report, len(report.scales))
    if report.uncovered:
        yield Text(f"float, no template: {_format_counts(report.uncovered.items())}")
    if balance := str(report.balance):
        yield Text(balance)
    yield from map(Text, report.notes)
    times = ", ".join(f"{each.name} {each.seconds * 1e3:.0f}" for each in report.passes)
    yield Text(f"passes (ms): {times}")
    yield Text(_sizes(report))


def _head(report: Report) -> Iterator[RenderableType]:
    if report.headline:
        yield Text(report.headline, style="bold")
    yield Text(f"backend {report.backend}, target {report.target}: {report.policy}")
    if report.unverified:
        yield Text(f"unverified: {report.unverified}")


def _rows_table(report: Report, work: Sequence[OperatorWork]) -> Table:
    """Return the counts of both forms, with the kernels of the compiled form if there is one."""
    columns = ("planned", "converted", "lowered", "compiled", "MACs", "weights")
    table = folded_table("op", *columns, "reaches")
    for column in table.columns[1 : 1 + len(columns)]:
        column.justify = "right"
    total = Balance.of(work)
    for row in report.rows:
        own = {site.site for site in report.sites if _is_of(site, row)}
        shares = _shares([each for each in work if each.planned and each.site in own], total)
        kernels = row.kernels if row.compiled is None else row.compiled_kernels
        counts = row.planned, row.converted, row.lowered, row.compiled
        reaches = _format_counts(kernels.items()) or row.reach
        table.add_row(row.label, *map(_count, counts), *shares, reaches)
    table.add_section()
    totals = report.planned, report.converted, report.lowered, report.compiled
    shares = _shares([each for each in work if each.planned], total)
    table.add_row("all", *map(_count, totals), *shares, "")
    return table


def _is_of(site: SiteOutcome, row: OpRow) -> bool:
    return (site.kind, site.reach, site.mode) == (row.kind, row.reach, row.mode)


def _shares(work: Sequence[OperatorWork], total: Balance) -> tuple[str, str]:
    """Return the operators' shares of the model's multiply-accumulates and weight bytes."""
    own = Balance.of(work)
    macs = _share(own.macs, total.macs)
    return ("unknown" if own.unknown else macs), _share(own.weight_bytes, total.weight_bytes)


def _share(part: int, whole: int) -> str:
    if not part:
        return "-"
    return f"{part / whole:.0%}" if 200 * part >= whole else "<1%"


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)


def _causes_table(
    report: Report, work: Sequence[OperatorWork], most: int | None = None
) -> Table | None:
    """Return a table of float operators with work, most expensive first.

    Args:
        report: Its headline, if any, shows the remedies already.
        work: From ``add_reached``.
        most: How many rows to show, none of which costs next to nothing; None for all.
    """
    total = Balance.of(work)
    found = [rows for _, rows in by_cause(work)]
    if not found:
        return None
    shown = found
    if most is not None:
        shown = [rows for rows in found if matters(Balance.of(rows), total)][:most]
    table = folded_table("stays float", "calls", "MACs", "weights", "because")
    for column in table.columns[1:4]:
        column.justify = "right"
    for rows in shown:
        first = rows[0]
        remedy = "" if report.headline else remedy_of(first.op, first.reason, report.backend)
        because = f"{reason_for(first)}{f': {remedy}' if remedy else ''}"
        table.add_row(shorten(first.op), str(len(rows)), *_shares(rows, total), Text(because))
    rest = [row for rows in found if rows not in shown for row in rows]
    if rest:
        reasons = len({row.reason for row in rest})
        told = f"smaller ones, for {reasons} reason{'s' * (reasons > 1)}: see {_ALL}"
        table.add_row("others", str(len(rest)), *_shares(rest, total), Text(told))
    return table


def _unused_rules(report: Report) -> Iterator[Text]:
    return (Text(f"{each.rule}: {each.reason}") for each in report.unused_rules)


def _small_operators(report: Report) -> str:
    """Return the float operators that compute something but have no row in the tables."""
    found = Counter(each.op for each in report.skipped)
    found.update(report.uncovered)
    found.subtract(each.op for each in report.work if not each.planned)
    small = {shorten(op): count for op, count in found.most_common() if count > 0}
    computing = [pair for pair in small.items() if pair[0] not in MOVES]
    told = [f"{op} x{count}" for op, count in computing[:_OPERATORS]]
    if len(computing) > _OPERATORS:
        told.append(f"{len(computing) - _OPERATORS} more")
    if moves := sum(count for op, count in small.items() if op in MOVES):
        told.append(f"{moves} views and copies")
    return ", ".join(told)


def shorten(op: str) -> str:
    """Return the name of a torch operator without namespace and overload."""
    return op.split(".")[1] if op.startswith("aten.") else op


def _reasons_table(report: Report) -> Table:
    names = {each.site.rpartition("/")[2] for each in report.skipped}
    names |= {each.site.node for each in report.work} | {each.site.node for each in report.sites}
    groups: dict[tuple[str, str], list[SkippedSite]] = {}  # by operator and reason without names
    for each in report.skipped:
        reason = _SLOT.sub(lambda word: "…" if word[0] in names else word[0], each.reason)
        reason = drop_names(_NUMBERED.sub("…", reason), names)
        groups.setdefault((each.op, reason), []).append(each)
    table = folded_table("stays float", "calls", "because", "where")
    table.columns[1].justify = "right"
    for (op, reason), skipped in sorted(groups.items(), key=lambda group: -len(group[1])):
        whole = {each.reason for each in skipped}
        because = whole.pop() if len(whole) == 1 else reason
        where = ", ".join(each.site for each in skipped)
        table.add_row(op, str(len(skipped)), Text(because), Text(where))
    return table


def _missed_table(sites: Sequence[SiteOutcome], most: int) -> Table:
    table = folded_table("missed its kernel", "op", "because")
    for site in sites[:most]:
        table.add_row(str(site.site), site.kind, Text(site.reason))
    if len(sites) > most:
        table.add_row(f"and {len(sites) - most} more", "", f"see {_ALL}")
    return table


def _scales_table(report: Report, most: int) -> Table:
    table = folded_table("scale does not fit", "because")
    for each in report.scales[:most]:
        table.add_row(each.site, Text(each.reason))
    if len(report.scales) > most:
        table.add_row(f"and {len(report.scales) - most} more", f"see {_ALL}")
    return table


def _format_counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} x{count}" for name, count in counts)


def _time(passes: Sequence[PassTime]) -> str:
    total = sum(each.seconds for each in passes)
    if not passes:
        return "no passes"
    slowest = max(passes, key=lambda each: each.seconds)
    return f"passes: {total:.1f} s, {slowest.name} {slowest.seconds:.1f} of it"


def _sizes(report: Report) -> str:
    return (
        f"tensors: {report.float_bytes / 2**20:.1f} MiB float -> "
        f"{report.quantized_bytes / 2**20:.1f} MiB quantized"
    )
