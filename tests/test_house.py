"""The layout holds together: links, packages, one name a module, and the allowed arrows."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import quantfx
from tests.sampled import SAMPLED, SWEPT

ROOT = Path(__file__).parent.parent
ROOMS = ("passes", "patterns", "backends", "tools")
OWN = ("accuracy", "bisection", "cli", "compat", "decoding", "dynamo", "saving", "testing")
# What is imported when a function runs, against the order: a pipeline's text needs every pass, a
# file the version of what wrote it, and the facade what people run around the library.
LATE = {("passes/pipeline/known_passes.py", "passes"), ("quantfx/saving/file.py", "quantfx")}


def folders() -> list[str]:
    """Return what ARCHITECTURE.md lists: folders, and ``passes/errors``, in the order of imports."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = text.partition("## Rooms\n")[2].split("```\n")[1]
    return [line.split()[0] for line in block.splitlines()]


ORDER = folders()


def folder_of(module: str) -> str:
    """Return the folder of ORDER that a module of ours is in."""
    _, *parts = module.split(".")
    path = "/".join(parts[:3] if parts and parts[0] in ROOMS else ["quantfx", *parts[:2]])
    while path and path not in ORDER:
        path = path.rpartition("/")[0]
    return path


def module_of(file: Path) -> str:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith("quantfx") else f"quantfx.{name}"


def files() -> list[Path]:
    found = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    found += (ROOT / "quantfx").glob("*.py")
    return sorted(found + [file for own in OWN for file in (ROOT / "quantfx" / own).rglob("*.py")])


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path, *, top_level: bool) -> Iterator[str]:
    for node in parsed(file).body if top_level else ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_links_lead_to_the_rooms(room: str) -> None:
    link = ROOT / "quantfx" / room
    assert link.is_symlink()
    assert link.resolve() == (ROOT / room).resolve()


def test_every_package_folder_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    held = {file.parent.relative_to(ROOT).parts for file in files()}
    names = {".".join(parts if parts[0] == "quantfx" else ("quantfx", *parts)) for parts in held}
    assert sorted(listed) == sorted(names)


# One process for all that an import must not do: it takes seconds.
IMPORT = """
import json, sys, warnings, torch
before, version = set(sys.modules), torch.__version__
torch.__version__ = "2.99.0.dev20270101+cpu"  # newer than any that is tested
with warnings.catch_warnings(record=True) as caught:
    import quantfx
    light = sorted(set(sys.modules) - before)
    try:
        quantfx.Pipeline.parse("tidy, hide-kernel")
    except quantfx.QuantfxError as error:
        unknown = f"{error} {'torch._inductor' in sys.modules}"
    import quantfx.cli, quantfx.compat
warned = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
torch.__version__ = version
import quantfx.tools.bench.run, quantfx.tools.drawing.render
files = {}
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file and "quantfx" in name:
        files.setdefault(file, []).append(name)
print(json.dumps([light, unknown, warned, list(files.values()), list(sys.modules)]))
"""


class Imported(NamedTuple):
    """What an import did."""

    light: list[str]
    unknown: str
    warned: list[str]
    files: list[list[str]]
    modules: list[str]


@pytest.fixture(scope="module")
def imported() -> Imported:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], check=True, cwd=ROOT, capture_output=True, text=True
    )
    return Imported(*json.loads(done.stdout))


def test_importing_quantfx_imports_neither_compilers_nor_what_few_need(imported: Imported) -> None:
    names = {".".join(name.split(".")[:parts]) for name in imported.light for parts in (1, 2)}
    assert "quantfx.passes" in names
    heavy = {"torch._inductor", "torch._dynamo", "torch._functorch", "torch.onnx"}
    assert not names & (heavy | {"sympy", "networkx", "graphviz", "onnx", "torchao"})
    assert imported.unknown == (
        "column 17: no pass 'hide-kernel' (did you mean 'hide-kernels'?) False"
    ), "an unknown name is told without Inductor"


def test_what_is_imported_late_is_there() -> None:
    assert set(quantfx.__all__) <= set(dir(quantfx))
    for name in quantfx.__all__:
        assert getattr(quantfx, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        _ = quantfx.quantise


def test_no_module_under_two_names(imported: Imported) -> None:
    assert "quantfx.tools.drawing.render" in imported.modules
    assert [names for names in imported.files if len(names) > 1] == []
    assert not {"passes", "patterns", "backends", "tools"} & set(imported.modules)


def test_no_peer_is_imported_before_its_engine_is_built(imported: Imported) -> None:
    assert "quantfx.tools.bench.run" in imported.modules
    # Of quantfx.compat, too. That it changes no state of torch is in test_global_state_2_13.py.
    peers = {"torchao", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf"}
    assert not peers & set(imported.modules)


def test_importing_does_not_warn_of_a_newer_torch(imported: Imported) -> None:
    assert imported.warned == []


def test_each_folder_imports_only_from_those_before_it() -> None:
    for file in files():
        here, at = folder_of(module_of(file)), str(file.relative_to(ROOT))
        top = {name for name in imports(file, top_level=True) if name.startswith("quantfx")}
        late = {name for name in imports(file, top_level=False) if name.startswith("quantfx")} - top
        for name in top:
            assert ORDER.index(folder_of(name)) <= ORDER.index(here), f"{at} imports {name}"
        for name in late:
            there = folder_of(name)
            allowed = (at, there) in LATE or (here == "quantfx" and there.startswith("tools"))
            assert ORDER.index(there) <= ORDER.index(here) or allowed, f"{at} imports {name}"


def test_every_folder_has_a_line_and_a_docstring_and_few_files() -> None:
    held = {file.parent for file in files()}
    names = {str(folder.relative_to(ROOT)) for folder in held}
    assert names | {"passes/errors"} == set(ORDER)
    for folder in held:
        assert ast.get_docstring(parsed(folder / "__init__.py"))
        assert len(list(folder.glob("*.py"))) - 1 <= 30, folder
    boxes = [each for each in held if each.parent == ROOT / "passes"]
    assert len(boxes) + len(list((ROOT / "passes").glob("[!_]*.py"))) <= 20


def test_no_file_and_no_function_is_long() -> None:
    for file in files():
        at = file.relative_to(ROOT)
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, at
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{at}: {node.name}"


# Where one may stand: few files, so that few are parsed for it.
SPLAT = re.compile(r"(?:[(\[{,=]|return|yield|in)\s*\*{1,2}\s*[(\[{]")


def test_no_literal_is_splat_to_please_the_formatter() -> None:
    """``*(a, b),`` keeps two arguments on a line; a reader stops at it: three lines are fine."""
    candidates = [*files(), *(ROOT / "tests").rglob("*.py")]
    for file in (each for each in candidates if SPLAT.search(each.read_text(encoding="utf-8"))):
        for node in ast.walk(parsed(file)):
            at = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Starred):
                assert not isinstance(node.value, ast.Tuple | ast.List | ast.Set), at
            elif isinstance(node, ast.Dict):
                inner = [v for k, v in zip(node.keys, node.values, strict=True) if k is None]
                assert not any(isinstance(value, ast.Dict) for value in inner), at
            elif isinstance(node, ast.Call):
                given = [each.value for each in node.keywords if each.arg is None]
                assert not any(isinstance(value, ast.Dict) for value in given), at


def test_sampled_tables_are_there() -> None:
    for name in (*SAMPLED, *SWEPT):
        file, _, function = name.partition("[")[0].partition("::")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"\b{function}\b", text), f"{name} is gone"


def test_numpy_is_not_needed() -> None:
    """It is no dependency, and torch's own conversions fail without it."""
    asking = [str(file) for file in files() if ".numpy()" in file.read_text(encoding="utf-8")]
    assert not [name for name in asking if "/tools/" not in name and "/cli/" not in name]
