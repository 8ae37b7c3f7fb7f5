from __future__ import annotations

import sys
import sysconfig
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from quantfx.tools.doctor import programs as doctor_programs
from quantfx.tools.doctor.check import Check
from quantfx.tools.measure import machine


@pytest.fixture(autouse=True)
def no_cxx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(doctor_programs, "INDUCTORS_COMPILER", "g++")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own, for the programs that a test puts into it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, name: str, says: str, to: int = 1) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}' >&{to}\necho more >&{to}\n")
    path.chmod(0o755)
    return path


def test_a_compiler_says_its_version(programs: Path) -> None:
    install(programs, "g++", "g++ 12.2")
    install(programs, "clang++", "clang 17")
    assert doctor_programs.compiler() == Check("C++ compiler", "ok", "g++ 12.2")


def test_cxx_decides(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(programs, "g++", "g++ 12.2")
    clang = install(programs, "clang++", "clang 17")
    monkeypatch.setenv("CXX", str(clang))
    assert doctor_programs.compiler().found == "clang 17"
    monkeypatch.setenv("CXX", "ccache g++")  # Inductor looks for a program of that name
    check = doctor_programs.compiler()
    assert (check.status, check.found) == ("problem", "CXX=ccache g++ is no program")


def test_without_a_compiler(programs: Path) -> None:
    check = doctor_programs.compiler()
    assert (check.status, check.found) == ("problem", "none")
    assert "apt install g++" in check.fix


def test_a_compiler_that_inductor_does_not_look_for(programs: Path) -> None:
    install(programs, "clang++", "clang 17")
    check = doctor_programs.compiler()
    assert check.status == "problem"
    assert check.found == "clang++, but Inductor looks for g++"
    assert check.fix == "export CXX=clang++"


def test_a_program_that_cannot_be_run_is_no_crash(programs: Path) -> None:
    path = install(programs, "g++", "g++ 12.2")
    path.write_text("#!/nowhere\n")
    assert "does not answer to --version" in doctor_programs.compiler().found


def test_dot_speaks_on_standard_error_and_is_not_needed(programs: Path) -> None:
    check = doctor_programs.dot()
    assert check.status == "note"
    assert "apt install graphviz" in check.fix
    install(programs, "dot", "dot - graphviz version 9", to=2)
    assert doctor_programs.dot() == Check("Graphviz dot", "ok", "dot - graphviz version 9")


def test_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    check = doctor_programs.python_headers()
    assert (check.status, check.found) == ("problem", f"no {tmp_path / 'Python.h'}")
    assert "apt install python3-dev" in check.fix
    (tmp_path / "Python.h").touch()
    assert doctor_programs.python_headers().status == "ok"


def test_peers_are_read_from_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "openvino":
            raise PackageNotFoundError(name)
        return "1.0"

    before = set(sys.modules)
    monkeypatch.setattr(machine, "version", version)
    check = doctor_programs.peers()
    assert (check.status, check.found) == ("note", "torchao 1.0, onnxruntime 1.0, no openvino")
    monkeypatch.setattr(machine, "version", lambda name: "2.0")
    assert doctor_programs.peers().status == "ok"
    assert not (set(sys.modules) - before) & set(doctor_programs.PEERS)
