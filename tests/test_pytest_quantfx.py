"""The plugin of pytest, in folders of users."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "own_tests"

LIGHT = """
import sys

def test_light(request):
    assert request.config.pluginmanager.has_plugin("pytest_quantfx")
    assert not {"torch", "quantfx", "syrupy"} & set(sys.modules)
"""

OWN = """
import quantfx, torch

def test_graph(graph_snapshot):
    graph = quantfx.capture(torch.nn.ReLU().eval(), (torch.ones(2, 3),))
    graph_snapshot(graph)

class TestClass:
    def test_graph(self, graph_snapshot):
        graph_snapshot(quantfx.capture(torch.nn.Tanh().eval(), (torch.ones(2, 3),)), "tanh")
"""


# Stores graphs, changes one, and compares: in one process, as the imports take seconds.
TWICE = """
import sys, pathlib, pytest
options = ["-p", "pytest_quantfx"]
assert pytest.main([*options, "test_own.py", "--update-graphs"]) == 0
file = pathlib.Path(sys.argv[1])
file.write_text(file.read_text().replace("relu", "gelu"))
print("CHANGED", flush=True)
pytest.main([*options, "--render-graphs", "drawn"])
"""


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as a user does, whether or not the entry point is installed here."""
    return python_in(folder, "-m", "pytest", "-p", "pytest_quantfx", *arguments)


def python_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_pytest_finds_it_by_the_name_that_it_has_here() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = settings["project"]["entry-points"]["pytest11"]
    assert found == {"pytest_quantfx": "pytest_quantfx"}
    assert settings["tool"]["setuptools"]["py-modules"] == ["pytest_quantfx"]


def test_nothing_heavy_is_imported_before_the_fixture_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_light.py").write_text(LIGHT)
    ended = pytest_in(tmp_path, "-p", "no:syrupy")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_graphs_are_compared_drawn_and_stored_and_the_example_runs(tmp_path: Path) -> None:
    """That no seed of hashes counts, tests/passes/draw/test_dot.py has."""
    (tmp_path / "test_own.py").write_text(OWN)
    graphs = tmp_path / "__graphs__" / "test_own"
    file = graphs / "test_graph.dot"
    shutil.copytree(EXAMPLE, tmp_path / "example")
    done = python_in(tmp_path, "-c", TWICE, str(file))
    stored, _, compared = done.stdout.partition("CHANGED")
    assert "2 passed" in stored, done.stdout + done.stderr
    names = sorted(each.name for each in graphs.iterdir())
    assert names == ["TestClass.test_graph+tanh.dot", "test_graph.dot"]
    assert "1 failed, 3 passed" in compared
    assert f"the graph differs from {file}:" in compared
    assert '-  "gelu" [label="gelu' in compared
    assert '+  "relu" [label="relu' in compared
    drawn = sorted(file.name.removesuffix(".dot") for file in (tmp_path / "drawn").iterdir())
    assert drawn == ["test_graph-actual.svg", "test_graph-expected.svg"]
    assert "expected: drawn/test_graph-expected.svg" in compared
