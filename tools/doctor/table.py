"""The findings of ``quantfx doctor`` as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from quantfx.tools.doctor.check import Check, Status
from quantfx.tools.doctor.report import DoctorReport
from quantfx.tools.doctor.templates import WITHOUT_SUM, TemplateRow

STYLES: dict[Status, str] = {"ok": "green", "note": "yellow", "problem": "red"}

_SUM_APART = "sum apart"


def checks_table(checks: Sequence[Check]) -> Table:
    """Return a row for every check, with its fix below."""
    table = _table("", "", "")
    for check in checks:
        fix = f"\n-> {check.fix}" if check.fix else ""
        status = Text(check.status, STYLES[check.status])
        table.add_row(status, Text(check.name), Text(check.found + fix))
    return table


def template_parts(report: DoctorReport) -> Iterator[Table | Text]:
    """Yield the table of templates, notes on some, and the meaning of the columns."""
    yield templates_table(report)
    for row in report.templates:
        if row.reason:
            yield Text(f"{row.template}: {row.reason}", STYLES[row.status])
    if report.unverified:
        yield Text(f"unverified: {report.unverified}; only lowered, not run", STYLES["note"])
    yield Text(_legend(report.templates))


def templates_table(report: DoctorReport) -> Table:
    """Return a row for every template; untried routes have no column."""
    compiles = any(row.compiled is not None for row in report.templates)
    table = _table("template", "mode", "promises", "lowered", *(["compiled"] if compiles else []))
    table.title = f"backend {report.backend}"
    for column in table.columns:
        column.no_wrap = column.header != "promises"  # the widest, so only it is shortened
    for row in report.templates:
        mode = f"{row.mode} (*)" if row.on_request else row.mode
        reached = [
            _format_lowered(row),
            *([_format_reached(row, row.compiled)] if compiles else []),
        ]
        style = "" if row.status == "ok" else STYLES[row.status]
        table.add_row(*(Text(cell, style) for cell in (row.template, mode, row.promised, *reached)))
    return table


def conclusion(report: DoctorReport) -> Text:
    """Return the last line."""
    if not report.problems:
        return Text("no problem found", STYLES["ok"])
    counted = "1 problem" if report.problems == 1 else f"{report.problems} problems"
    return Text(f"{counted} found", STYLES["problem"])


def _format_lowered(row: TemplateRow) -> str:
    return _SUM_APART if _sum_apart(row, row.lowered) else _format_reached(row, row.lowered)


def _format_reached(row: TemplateRow, kernel: str | None) -> str:
    """Return ``yes`` for the promised kernel, and the name of any other."""
    if kernel is None:
        return "-"
    return "yes" if kernel == row.promised else kernel or "no"


def _sum_apart(row: TemplateRow, kernel: str) -> bool:
    return row.promised in WITHOUT_SUM and kernel in WITHOUT_SUM.values()


def _legend(rows: Sequence[TemplateRow]) -> str:
    lines = [
        "lowered: in result.module, where a sum is still an operator of its own, and dq-op-q a "
        "float one between dequantize and quantize."
    ]
    if any(row.on_request for row in rows):
        lines.append("(*): only where a rule of the config asks for it.")
    return "\n".join(lines)


def _table(*columns: str) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        show_header=any(columns),
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title_justify="left",
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
