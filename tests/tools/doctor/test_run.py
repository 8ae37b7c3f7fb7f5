from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quantfx.cli import main
from quantfx.tools.doctor import machine as doctor_machine
from quantfx.tools.doctor import programs as doctor_programs
from quantfx.tools.doctor import run as doctor
from quantfx.tools.doctor.check import Check
from quantfx.tools.doctor.report import DoctorReport
from quantfx.tools.doctor.run import run


def quiet() -> Console:
    return Console(file=StringIO(), width=80)


def text_of(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Check(doctor_programs.COMPILER, "problem", "none", "install one")
    monkeypatch.setattr(doctor_programs, "CHECKS", (lambda: missing,))


@pytest.fixture
def few_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line tries one template only."""

    def restricted(name: str, **options: Any) -> DoctorReport:
        return run(name, **options, templates=["linear"])

    monkeypatch.setattr(doctor, "run", restricted)


def test_every_check_is_made() -> None:
    names = [check.name for check in doctor.all_checks()]
    made: list[Callable[[], Check]] = [*doctor_machine.CHECKS, *doctor_programs.CHECKS]
    assert len(set(names)) == len(names) == len(made) + 3  # the runtime of plans, and two kernels


def test_everything_is_printed_and_written(tmp_path: Path) -> None:
    console, file = quiet(), tmp_path / "new" / "doctor.json"
    report = run(json=file, templates=["linear", "cat"], console=console)
    text = text_of(console)
    for word in ("Python", "C++ compiler", "int8 linear", "backend x86", "int8 cat", "written:"):
        assert word in text
    written = json.loads(file.read_text())
    assert list(written) == [
        "format",
        "status",
        "machine",
        "checks",
        "backend",
        "unverified",
        "templates",
    ]
    assert written["format"] == 1
    assert written["status"] == report.status
    assert written["checks"][0].keys() == {"name", "status", "found", "fix"}
    assert written["machine"]["target"] == report.machine.target
    assert written["templates"][1] == {
        "template": "cat",
        "mode": "static",
        "on_request": False,
        "promised": "int8 cat",
        "lowered": "int8 cat",
        "compiled": None,
        "status": "ok",
        "reason": "",
    }


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_nothing_is_compiled() -> None:
    console = quiet()
    report = run(compiles=True, templates=["linear"], console=console)
    assert report.problems == 1
    assert report.templates[0].compiled is None
    assert "not compiled: see the problem above" in text_of(console)


def test_another_backend() -> None:
    console = quiet()
    report = run("xpu", templates=["linear"], console=console)
    assert (report.backend, report.unverified) == ("xpu", "no XPU")
    assert "unverified: no XPU" in text_of(console)


@pytest.mark.usefixtures("no_compiler", "few_templates")
def test_a_problem_is_the_exit_status() -> None:
    assert main(["doctor"]) == 1


@pytest.mark.usefixtures("few_templates")
def test_notes_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = Check("dot", "note", "none", "install it")
    monkeypatch.setattr(doctor_programs, "CHECKS", (lambda: note,))
    assert main(["doctor", "--backend", "xpu", "--json", str(tmp_path / "doctor.json")]) == 0
    assert json.loads((tmp_path / "doctor.json").read_text())["backend"] == "xpu"


def test_an_unknown_backend_ends_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--backend", "x68"]) == 1
    assert "no backend 'x68' (did you mean 'x86'?)" in " ".join(capsys.readouterr().err.split())
