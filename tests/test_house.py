"""The layout holds together: links, packages, one name a module, and the allowed arrows."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

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


def test_no_module_under_two_names() -> None:
    code = (
        "import sys, quantfx, quantfx.cli, quantfx.compat, quantfx.tools.render\n"
        "files = {}\n"
        "for name, module in list(sys.modules.items()):\n"
        "    file = getattr(module, '__file__', None)\n"
        "    if file and 'quantfx' in name: files.setdefault(file, []).append(name)\n"
        "assert all(len(names) == 1 for names in files.values()), files\n"
        "assert not {'passes', 'patterns', 'backends', 'tools'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


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


def test_importing_changes_no_global_state_of_torch() -> None:
    code = (
        "import torch, torch._inductor.config as inductor, torch._dynamo.config as dynamo\n"
        "before = inductor.save_config(), dynamo.save_config()\n"
        "threads, grad = torch.get_num_threads(), torch.is_grad_enabled()\n"
        "import quantfx, quantfx.cli, quantfx.compat\n"
        "assert before == (inductor.save_config(), dynamo.save_config())\n"
        "assert threads == torch.get_num_threads() and grad == torch.is_grad_enabled()\n"
        "import sys; assert 'torchao' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_private_names_of_torch_are_isolated() -> None:
    """Each private module of torch is imported by the one file that ARCHITECTURE.md names."""
    found: dict[str, set[str]] = {}
    for room in (*ROOMS, *FACADE):
        for file in sorted((ROOT / room).glob("*.py")):
            for name in imports(file, top_level=False):
                private = name.startswith("torch.") and any(
                    part.startswith("_") for part in name.split(".")
                )
                if private and not name.startswith("torch._ops"):
                    found.setdefault(name.rpartition(".")[0] or name, set()).add(file.name)
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for files in found.values():
        assert all(file in text for file in files), found
