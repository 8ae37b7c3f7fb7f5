from __future__ import annotations

from io import StringIO

from rich.console import Console

from quantfx.tools.doctor.check import Check
from quantfx.tools.doctor.report import DoctorReport
from quantfx.tools.doctor.table import checks_table, conclusion, template_parts
from quantfx.tools.doctor.templates import TemplateRow
from quantfx.tools.measure.machine import this_machine

SUM = "qlinear_pointwise.binary_tensor"
PLAIN = TemplateRow("linear", "static", False, "qlinear_pointwise", "qlinear_pointwise")
ADDED = TemplateRow("linear_add_dynamic", "dynamic", False, SUM, "qlinear_pointwise.tensor")
MATMUL = TemplateRow("matmul", "static", True, "fused", "dq-op-q")
COMPILED = (
    TemplateRow("a", "static", False, "k", "k", "k"),
    TemplateRow("b", "dynamic", False, SUM, "qlinear_pointwise.tensor", SUM),
    TemplateRow("c", "static", False, "k", "k", "", "problem", "not found [there]"),
    TemplateRow("d", "static", False, "k", "k", "other", "problem", "compiled to other"),
    TemplateRow("e", "static", False, "k", "", None, "problem", "refused"),
)


def report(*rows: TemplateRow, unverified: str = "") -> DoctorReport:
    return DoctorReport(
        this_machine(), checks=(), backend="x86", unverified=unverified, templates=rows
    )


def text_of(*parts: object, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def lines_of(found: DoctorReport, width: int = 80) -> list[list[str]]:
    return [line.split() for line in text_of(*template_parts(found), width=width).splitlines()]


def test_checks_with_their_fixes() -> None:
    lines = text_of(
        checks_table([Check("dot", "note", "no [dot]", "apt install it"), Check("CPU", "ok", "x")])
    ).splitlines()
    assert [line.split() for line in lines] == [
        ["note", "dot", "no", "[dot]"],
        ["->", "apt", "install", "it"],
        ["ok", "CPU", "x"],
    ]


def test_without_compiling_there_is_one_route() -> None:
    lines = lines_of(report(PLAIN, ADDED, MATMUL))
    assert ["template", "mode", "promises", "lowered"] in lines
    assert ["linear", "static", "qlinear_pointwise", "yes"] in lines
    assert ["linear_add_dynamic", "dynamic", SUM, "sum", "apart"] in lines
    assert ["matmul", "static", "(*)", "fused", "dq-op-q"] in lines


def test_all_routes_and_why_one_misses() -> None:
    lines = lines_of(report(*COMPILED), width=100)
    assert ["template", "mode", "promises", "lowered", "compiled"] in lines
    assert ["a", "static", "k", "yes", "yes"] in lines
    assert ["b", "dynamic", SUM, "sum", "apart", "yes"] in lines
    assert ["c", "static", "k", "yes", "no"] in lines
    assert ["d", "static", "k", "yes", "other"] in lines
    assert ["e", "static", "k", "no", "-"] in lines
    assert ["c:", "not", "found", "[there]"] in lines
    assert ["e:", "refused"] in lines


def test_in_80_columns_nothing_is_lost() -> None:
    wide = TemplateRow("linear_add_dynamic", "weight-only", True, SUM, "k", SUM)
    text = " ".join(text_of(*template_parts(report(wide))).split())
    assert "…" not in text
    assert "linear_add_dynamic weight-only (*)" in text


def test_what_cannot_be_tried_is_said() -> None:
    text = text_of(*template_parts(report(PLAIN, unverified="no XPU")))
    assert "unverified: no XPU; only lowered, not run" in text


def test_the_last_line_counts_problems() -> None:
    assert text_of(conclusion(report(PLAIN))) == "no problem found\n"
    assert text_of(conclusion(report(*COMPILED[:3]))) == "1 problem found\n"
    assert text_of(conclusion(report(*COMPILED))) == "3 problems found\n"
