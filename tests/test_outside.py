"""What people write outside of quantfx runs, and type-checks, from public names alone."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quantfx
from docs.generate.reference import PUBLIC
from tests.docs.pages import pages

ROOT = Path(__file__).parent.parent
OUTSIDE = ROOT / "tests" / "outside"
PAGES = tuple(
    str(page.relative_to(ROOT))
    for page in (*pages(), ROOT / "MIGRATION.md", ROOT / "CONTRIBUTING.md")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in OUTSIDE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_backend_with_all_its_parts_runs_in_an_empty_folder(folder: Path) -> None:
    kernels, numbers, refused = run(folder, "gate.py").splitlines()
    assert kernels == "['gate.linear_relu', 'gate.linear']"
    assert numbers == "True False"  # the kernels' results, and the factor of 1 that is gone
    assert "99 outputs, and the device has 64" in refused


@pytest.mark.sweep  # in place, `make lint` does it
def test_it_type_checks(folder: Path) -> None:
    pytest.importorskip("mypy")
    options = ("--strict", "--follow-imports", "silent", "--cache-dir", str(ROOT / ".mypy_cache"))
    assert "no issues found" in run(folder, "-m", "mypy", *options, "gate.py")


def listed(module: str) -> set[str]:
    __import__(module)
    return set(sys.modules[module].__all__)


def imported(text: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "quantfx":
            yield from ((str(node.module), alias.name) for alias in node.names)


def blocks(page: Path) -> Iterator[str]:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        yield from re.findall(
            r"^from quantfx[\w.]* import (?:\([^)]*\)|[^\n]*)", block, re.MULTILINE
        )


def test_every_listed_name_exists_and_says_what_it_is() -> None:
    for module in PUBLIC:
        for name in listed(module):
            value = getattr(sys.modules[module], name)
            made = inspect.isclass(value) or inspect.isroutine(value)
            assert not made or value.__doc__, f"{module}.{name}"


def test_examples_and_pages_import_listed_names_only() -> None:
    texts = {file.name: [file.read_text(encoding="utf-8")] for file in OUTSIDE.glob("*.py")}
    texts |= {page: list(blocks(ROOT / page)) for page in PAGES}
    seen = 0
    for where, parts in texts.items():
        for module, name in (each for part in parts for each in imported(part)):
            assert module in PUBLIC, f"{where} imports from {module}"
            assert name in listed(module) or f"{module}.{name}" in PUBLIC, f"{where}: {name}"
            seen += 1
    assert seen > 20


def test_the_root_of_all_errors_is_one() -> None:
    for name in quantfx.errors.__all__:
        kind = getattr(quantfx.errors, name)
        assert issubclass(kind, (quantfx.QuantfxError, quantfx.QuantfxWarning))
