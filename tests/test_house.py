"""The layout holds together: links, packages, one name a module, and the allowed arrows."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("passes", "patterns", "backends", "tools")
FACADE = ("quantfx", "quantfx/compat", "quantfx/dynamo")
# What each room may import of ours; tools may import anything.
ARROWS = {
    "patterns": {"patterns"},
    "passes": {"patterns", "passes"},
    "backends": {"patterns", "passes", "backends"},
}


def imports(file: Path, *, top_level: bool) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_links_lead_to_the_rooms(room: str) -> None:
    link = ROOT / "quantfx" / room
    assert link.is_symlink()
    assert link.resolve() == (ROOT / room).resolve()


def test_every_package_folder_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(
        [name.replace("/", ".") for name in FACADE] + [f"quantfx.{room}" for room in ROOMS]
    )
    for room in ROOMS:
        folders = [f for f in (ROOT / room).iterdir() if f.is_dir() and f.name != "__pycache__"]
        assert folders == [], "keep the rooms flat: a sub-package would not be installed"


# One process for all that an import must not do: it takes seconds.
IMPORT = """
import json, sys, torch, torch._inductor.config as inductor, torch._dynamo.config as dynamo
def state():
    return inductor.save_config(), dynamo.save_config(), torch.get_num_threads(), torch.is_grad_enabled()
before = state()
import quantfx, quantfx.cli, quantfx.compat
same = state() == before
torchao = "torchao" in sys.modules
import quantfx.tools.bench.run, quantfx.tools.drawing.render
files = {}
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file and "quantfx" in name:
        files.setdefault(file, []).append(name)
print(json.dumps([same, torchao, list(files.values()), list(sys.modules)]))
"""


class Imported(NamedTuple):
    """What an import did."""

    same_state: bool
    torchao: bool
    files: list[list[str]]
    modules: list[str]


@pytest.fixture(scope="module")
def imported() -> Imported:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], check=True, cwd=ROOT, capture_output=True, text=True
    )
    return Imported(*json.loads(done.stdout))


def test_no_module_under_two_names(imported: Imported) -> None:
    assert "quantfx.tools.drawing.render" in imported.modules
    assert [names for names in imported.files if len(names) > 1] == []
    assert not {"passes", "patterns", "backends", "tools"} & set(imported.modules)


def test_no_peer_is_imported_before_its_engine_is_built(imported: Imported) -> None:
    assert "quantfx.tools.bench.run" in imported.modules
    peers = {"torchao", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf"}
    assert not peers & set(imported.modules)


def test_importing_changes_no_global_state_of_torch(imported: Imported) -> None:
    assert imported.same_state
    assert not imported.torchao


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_only_along_the_arrows(room: str) -> None:
    for file in sorted((ROOT / room).glob("*.py")):
        for name in imports(file, top_level=False):
            parts = name.split(".")
            if parts[0] == "quantfx" and len(parts) > 1:
                assert parts[1] in ARROWS[room], f"{room}/{file.name} imports {name}"


def test_the_facade_reaches_tools_lazily() -> None:
    for file in sorted(file for folder in FACADE for file in (ROOT / folder).glob("*.py")):
        top = [name for name in imports(file, top_level=True) if name.startswith("quantfx.tools")]
        assert top == [], f"{file.name} imports {top} when it is imported"
