"""What quantfx relies on in torch without a public name: data, held against the running torch.

On another torch this shows in seconds what moved, and the file of ours to mend: the names of
``torch_names.toml`` and the operators of ``torch_schemas.toml``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx import GraphModule, symbolic_trace

from quantfx.passes.graph.clone import clone
from quantfx.patterns.errors import PatternError
from quantfx.patterns.schema import resolve_op, schema_arguments, schema_text
from quantfx.patterns.torch_version import release

ROOT = Path(__file__).parent.parent
ROOMS = ("passes", "patterns", "backends", "tools", "quantfx")
Names = dict[str, dict[str, dict[str, Any]]]


def read(name: str) -> Any:
    return tomllib.loads((ROOT / "tests" / name).read_text(encoding="utf-8"))


NAMES: Names = read("torch_names.toml")
SCHEMAS: dict[str, dict[str, str]] = read("torch_schemas.toml")


def find(name: str) -> Any:
    """Return what ``name`` means; of an attribute that instances have, the class.

    Raises:
        LookupError: the running torch has none.
    """
    found, rest = torch, name.split(".")[1:]
    for index, part in enumerate(rest, start=2):
        path = ".".join(name.split(".")[:index])
        if inspect.ismodule(found) and not hasattr(found, part):
            try:
                importlib.import_module(path)
            except ImportError:
                raise LookupError(name) from None
        if hasattr(found, part):
            found = getattr(found, part)
        elif not inspect.isclass(found) or part not in what_instances_have(found):
            raise LookupError(name)
    return found


def what_instances_have(owner: type[Any]) -> set[str]:
    names: set[str] = set(getattr(owner, "__dataclass_fields__", ()))
    for each in owner.__mro__:
        names |= set(vars(each))  # descriptors that raise where there is no instance
        code = getattr(vars(each).get("__init__"), "__code__", None)
        names |= set(getattr(code, "co_names", ()))
        names |= set(vars(each).get("__annotations__", ()))
    return names


def expected_here(entry: dict[str, Any], running: tuple[int, int]) -> bool:
    since, until = entry.get("since", "0.0"), entry.get("until", "9999.0")
    return release(since) <= running < release(until)


def moved(names: Names, running: tuple[int, int]) -> Iterator[str]:
    """Yield what the running torch has not as it is written down."""
    for file, entries in names.items():
        for name, entry in entries.items():
            try:
                found = find(name)
            except LookupError:
                if expected_here(entry, running):
                    yield f"{name} is gone: mend {file}, or write 'until' if it does without"
                continue
            if not expected_here(entry, running):
                yield f"{name} is there, against since and until: see {file}"
                continue
            missing = set(entry.get("arguments", ()))
            if missing:
                missing -= set(inspect.signature(found).parameters)
            if missing:
                yield f"{name} takes no {', '.join(sorted(missing))} any more: mend {file}"


def test_names_are_what_is_written_down() -> None:
    assert list(moved(NAMES, release(torch.__version__))) == []


@pytest.mark.parametrize(("entry", "running", "said"), [
    ({"torch._no_such_name": {}}, (2, 13), "torch._no_such_name is gone: mend a.py"),
    ({"torch._no_such.name": {}}, (2, 13), "torch._no_such.name is gone: mend a.py"),
    ({"torch.fx.Graph._no_such": {"until": "2.15"}}, (2, 14), "torch.fx.Graph._no_such is gone"),
    ({"torch.fx.Graph._codegen": {"until": "2.14"}}, (2, 14), "_codegen is there, against"),
    ({"torch.fx.Graph._codegen": {"since": "2.14"}}, (2, 13), "_codegen is there, against"),
    ({"torch.relu_never": {"until": "2.14"}}, (2, 14), None),
    ({"torch.fx.Interpreter": {"arguments": ["module", "x"]}}, (2, 13), "takes no x any more"),
])  # fmt: skip
def test_what_moved_is_said(
    entry: dict[str, dict[str, Any]], running: tuple[int, int], said: str | None
) -> None:
    found = list(moved({"a.py": entry}, running))
    assert (said is None) == (found == [])
    assert said is None or said in found[0]


def test_operators_have_the_schemas_that_are_written_down() -> None:
    changed: dict[str, str] = {}
    for file, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            try:
                found = schema_text(resolve_op(name))
            except PatternError as error:
                found = str(error)
            if found != schema:
                changed[f"{name} ({file})"] = found
    assert changed == {}


def test_files_use_what_is_written_down_of_them() -> None:
    for file, entries in NAMES.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        unused = [name for name in entries if name.rpartition(".")[2] not in text]
        assert unused == [], file
    for file in SCHEMAS:
        assert (ROOT / file).is_file()


def private_names(file: Path) -> Iterator[str]:
    """Yield private names of torch that a file imports, or reads by a dotted path."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        for name in names:
            if re.fullmatch(r"torch(\.\w+)*\._[a-zA-Z]\w*(\.\w+)*", name):
                yield name


def covers(name: str, longer: str) -> bool:
    return f"{longer}.".startswith(f"{name}.")


def test_private_names_stand_in_the_data() -> None:
    """Classes of operators apart, which are read everywhere: as types, and to tell nodes apart."""
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            known = NAMES.get(str(file.relative_to(ROOT)), {})
            for name in private_names(file):
                either = (covers(name, each) or covers(each, name) for each in known)
                assert name.startswith("torch._ops") or any(either), f"{file}: {name}"


def table() -> dict[str, list[str]]:
    """Return what ARCHITECTURE.md lists: file -> names."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("without a public name\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    listed: dict[str, list[str]] = {}
    for names, files in rows:
        for file in re.findall(r"`([^`]+)`", files):
            listed.setdefault(file, []).extend(re.findall(r"`(torch\.[^`]+)`", names))
    return listed


def test_architecture_lists_the_same_files_and_names() -> None:
    listed = table()
    assert set(listed) == set(NAMES)
    for file, names in listed.items():
        unlisted = [n for n in NAMES[file] if not any(covers(each, n) for each in names)]
        unknown = [each for each in names if not any(covers(each, n) for n in NAMES[file])]
        assert (unlisted, unknown) == ([], []), file


def test_importing_decomposed_registers_the_operators() -> None:
    import quantfx.passes.quant.qdq

    assert quantfx.passes.quant.qdq.QUANTIZE_PER_TENSOR is (
        torch.ops.quantized_decomposed.quantize_per_tensor.default
    )


def test_schemas_tell_what_is_written_to() -> None:
    alias = schema_arguments(resolve_op("aten.add_.Tensor"))[0].alias_info
    assert alias is not None
    assert alias.is_write


def test_the_calling_convention_is_a_codegen_of_the_graph() -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x + 1}

    exported = torch.export.export(Pair(), (torch.ones(2),)).module(check_guards=False)
    assert isinstance(exported, GraphModule)
    copy = clone(exported)
    copy.recompile()
    assert list(copy(torch.ones(2))) == ["y"]


def test_a_traced_module_without_pytrees_works_too() -> None:
    class Add(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    copy = clone(symbolic_trace(Add()))
    copy.recompile()
    assert float(copy(torch.ones(()))) == 2
