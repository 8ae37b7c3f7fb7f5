"""Nothing in a file is executed, unpickled or imported, whoever wrote it."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import quantfx
from quantfx.passes.errors import FileError
from tests.refusals import refused
from tests.saved_files import Edit, members, packed, rewritten, small_file
from tests.saved_models import ROWS


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_file(tmp_path_factory.mktemp("saved") / "model.quantfx")


class Marker:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickles_are_not_unpickled(saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    stream = io.BytesIO()
    torch.save({"0": Marker(marker)}, stream)
    for content in (stream.getvalue(), pickle.dumps(Marker(marker), protocol=2)):
        path = packed(tmp_path / "file", members(saved) | {"tensors.pt": content})
        with refused("hostile-file", FileError, site="file"):
            quantfx.load(path)
        assert not marker.exists()
    stream.seek(0)
    torch.load(stream, weights_only=False)
    assert marker.exists(), "the pickle is one that executes"


def test_tensors_of_other_kinds(saved: Path, tmp_path: Path) -> None:
    for content in ([ROWS], {"0": 1}, {0: ROWS}, {"0": nn.Parameter(ROWS)}, ROWS):
        stream = io.BytesIO()
        torch.save(content, stream)
        with refused("damaged-file", FileError, site="file"):
            quantfx.load(
                packed(tmp_path / "file", members(saved) | {"tensors.pt": stream.getvalue()})
            )


CODE = "x=__import__('pathlib').Path('executed').touch()"
_ENUM = {"__enum__": True, "fqn": "antigravity:x", "name": "a"}
_DEFAULTDICT = {
    "default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": ["a"],
}  # fmt: skip


def _same_names(data: dict[str, Any]) -> None:
    nodes = data["graph"]["nodes"]
    nodes[1]["name"] = nodes[0]["name"]


def _spec(kind: str, context: Any) -> str:
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])


def _node(index: int, **fields: Any) -> Edit:
    return lambda data: data["graph"]["nodes"][index].update(fields)


def _named(name: str, **fields: Any) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        next(node for node in data["graph"]["nodes"] if node["name"] == name).update(fields)

    return edit


def _input(**fields: Any) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        next(n for n in data["graph"]["nodes"] if n["op"] == "placeholder").update(fields)

    return edit


def _convention(**fields: Any) -> Edit:
    return lambda data: data["graph"]["convention"].update(fields)


def _state(name: str) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        state = data["graph"]["state"]
        state[name] = next(iter(state.values()))

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_input(target=CODE), "damaged-file: \"x=__import__('pathlib').Path('executed').touch()\""),
        (_input(name=CODE), "damaged-file: \"x=__import__('pathlib').Path('executed').touch()\""),
        (_input(target="class"), "damaged-file: 'class'"),
        (
            _convention(arguments=[CODE]),
            "damaged-file: \"x=__import__('pathlib').Path('executed').touch()\"",
        ),
        (
            _convention(inputs=_spec("collections.defaultdict", _DEFAULTDICT)),
            "no-text-form",
        ),
        (
            _convention(outputs=_spec("builtins.dict", json.dumps([_ENUM]))),
            "no-text-form",
        ),
        (_convention(inputs=_spec("os.system", "[]")), "not-imported"),
        (
            _state(f"a')+{CODE}#"),
            "damaged-file: \"a')+x=__import__('pathlib').Path('executed').touch()#\"",
        ),
        (_state("__class__"), "damaged-file: '__class__'"),
        (_state("forward.__globals__"), "damaged-file: 'forward.__globals__'"),
        (_named("relu", target="os.system"), "unknown-name: node 'relu': os.system"),
        (
            _named("relu", target="operator.methodcaller"),
            "unknown-name: node 'relu': operator.methodcaller",
        ),
        (_named("relu", target="torch.load"), "unknown-name: node 'relu': torch.load"),
        (
            _named("relu", target="aten.relu.__class__"),
            "unknown-name: node 'relu': aten.relu.__class__",
        ),
        (
            _named("relu", target="higher_order.__init__"),
            "unknown-name: node 'relu': higher_order.__init__",
        ),
        (
            _named("relu", target="aten.from_file.default", args=["executed", True, 4]),
            "hostile-file: node 'relu': aten.from_file.default",
        ),
        (_named("relu", target="load_library.x.y"), "unknown-name: node 'relu': load_library.x.y"),
        (
            _named("relu", kwargs={CODE: 1}),
            "damaged-file: \"x=__import__('pathlib').Path('executed').touch()\"",
        ),
        (
            _named("relu", op="call_method", target="__reduce__"),
            "no-text-form: relu",
        ),
        (_named("relu", op="call_module", target="0"), "no-text-form: relu"),
        (_named("relu", args=[{"dtype": "load"}]), "unknown-name: load"),
        (_named("relu", args=[{"global": "os.system"}]), "damaged-file: global"),
        (_same_names, "taken-name: _0_weight_scale"),
    ],
)
def test_texts_are_not_executed(
    edit: Edit, message: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "antigravity.py").write_text("import pathlib; pathlib.Path('executed').touch()")
    monkeypatch.syspath_prepend(str(tmp_path))
    with refused(message, FileError):
        quantfx.load(rewritten(saved, tmp_path / "file", "graph.json", edit))
    assert not (tmp_path / "executed").exists()


def test_sizes_are_names_and_not_evaluated(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["sizes"][CODE] = 4
        for node in data["graph"]["nodes"]:
            shape = node.get("value", {}).get("shape", [])
            shape[:] = [CODE if isinstance(size, str) else size for size in shape]

    monkeypatch.chdir(tmp_path)
    loaded = quantfx.load(rewritten(saved, tmp_path / "file", "graph.json", edit))
    assert torch.equal(loaded.module(ROWS), quantfx.load(saved).module(ROWS))
    assert not (tmp_path / "executed").exists()
