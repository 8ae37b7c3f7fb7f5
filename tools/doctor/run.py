"""``quantfx doctor``: what works in int8 with this machine and torch, and how to fix the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.tools.doctor import machine as doctor_machine
from quantfx.tools.doctor import programs as doctor_programs
from quantfx.tools.doctor.check import Check
from quantfx.tools.doctor.kernels import direct_checks, kernel_checks
from quantfx.tools.doctor.report import DoctorReport
from quantfx.tools.doctor.table import checks_table, conclusion, template_parts
from quantfx.tools.doctor.templates import TemplateRow, examine
from quantfx.tools.measure.machine import this_machine


def run(
    name: str = "x86",
    *,
    compiles: bool = False,
    json: Path | None = None,
    templates: Sequence[str] | None = None,
    console: Console | None = None,
) -> DoctorReport:
    """Check everything, and print and return the findings.

    Args:
        name: The backend whose templates to try.
        compiles: Whether to compile each template's example, which takes seconds.
        json: File for all findings.
        templates: Templates to try; by default all of the backend's.
        console: Where to print; by default standard output.

    Raises:
        QuantfxError: there is no such backend; names the nearest.
    """
    console = console or Console()
    backend = backends.get(name)
    with console.status("looking around"):
        checks = all_checks()
    console.print(checks_table(checks))
    names = backend.recipe.patterns.names if templates is None else templates
    if compiles and not _can_compile(checks):
        compiles = False
        console.print("not compiled: see the problem above", style="yellow")
    rows = _rows(backend, names, compiles, console)
    report = DoctorReport(
        this_machine(),
        checks=checks,
        backend=backend.name,
        unverified=backend.unverified,
        templates=rows,
    )
    for part in template_parts(report):
        console.print(part)
    console.print(conclusion(report))
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(report.to_json(), encoding="utf-8")
        console.print(f"written: {json}", markup=False, highlight=False)
    return report


def all_checks() -> tuple[Check, ...]:
    """Return the checks of the machine, of other programs, and of two kernels."""
    looked = (check() for check in (*doctor_machine.CHECKS, *doctor_programs.CHECKS))
    # Always the CPU's backend, as this machine is examined.
    return (*looked, *direct_checks(), *kernel_checks(backends.get("x86")))


def _rows(
    backend: Backend, names: Sequence[str], compiles: bool, console: Console
) -> tuple[TemplateRow, ...]:
    rows: list[TemplateRow] = []
    with console.status("") as status:
        for name in names:
            status.update(f"template {name}")
            rows.append(examine(backend, name, compiles=compiles))
    return tuple(rows)


def _can_compile(checks: Sequence[Check]) -> bool:
    """Whether compiling can work: a lacking compiler is reported once, not for each template."""
    needed = {doctor_programs.COMPILER, doctor_programs.HEADERS}
    return not any(check.name in needed and check.status == "problem" for check in checks)
