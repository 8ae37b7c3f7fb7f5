"""What cannot be written, and what files do not hold, is named; what others register is kept."""

from __future__ import annotations

import os
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.errors import FileError
from quantfx.tools.models.seeded import seeded
from tests.saved_models import ROWS, mlp, quantized


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    result = quantized(mlp(), ROWS)
    with pytest.raises(FileError, match="is a folder: name a file in it"):
        result.save(tmp_path)
    with pytest.raises(FileError, match="there is no folder .*absent: make it first"):
        result.save(tmp_path / "absent" / "file")


def test_what_has_no_form_in_files_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    result = quantized(mlp(), ROWS)
    result.quantized.add_module("scale", nn.Identity())
    first = next(node for node in result.quantized.graph.nodes if node.op == "call_function")
    with result.quantized.graph.inserting_after(first):
        result.quantized.graph.call_module("scale", (first,))
    with pytest.raises(FileError, match="file: node 'scale' calls the module 'scale'"):
        result.save(path)
    result.quantized.graph.erase_node(
        next(iter(result.quantized.graph.find_nodes(op="call_module")))
    )
    with result.quantized.graph.inserting_after(first):
        result.quantized.graph.call_function(os.system, ("true",))
    with pytest.raises(FileError, match="node 'system' calls .* no operator"):
        result.save(path)

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor, by: Any) -> Tensor:
            y: Tensor = self.layer(x)
            return y * by["one"]

    result = quantized(Takes(), ROWS, {"one": 1})
    result._inputs.args[1]["one"] = object()
    with pytest.raises(FileError, match="input 1 is a object"):
        result.save(path)
    result._inputs.args[1]["one"] = ROWS.to_sparse()
    with pytest.raises(FileError, match="input 1 is a Tensor, layout torch.sparse_coo, on cpu"):
        result.save(path)
    result = quantized(mlp(), ROWS)
    result.quantized.get_submodule("0").bias = nn.Parameter(torch.zeros(16, device="meta"))
    with pytest.raises(
        FileError, match="node '_0_bias' reads '0.bias', a Parameter: files hold plain dense"
    ):
        result.save(path)
    with pytest.raises(FileError, match="hold a defaultdict"):
        quantized(Takes(), ROWS, defaultdict(int, one=1)).save(path)
    assert not path.exists()


@torch.library.custom_op("quantfx_test::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """An operator of some library."""
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@dataclass
class Pair:
    left: Tensor
    right: Tensor


@dataclass
class Anonymous(Pair):
    pass


class TakesPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, pair: Pair) -> Pair:
        y: Tensor = self.layer(pair.left)
        return Pair(y, twice(pair.right))


def test_containers_and_operators_of_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    torch.export.register_dataclass(Pair, serialized_type_name="tests.Pair")
    batch = {"pair": Pair(ROWS, ROWS)}
    result = quantized(seeded(TakesPair), *batch.values(), calibration=[batch])
    result.save(path)
    output = quantfx.load(path).module(*batch.values())
    assert isinstance(output, Pair)
    assert torch.equal(output.right, 2 * ROWS)
    for found, absent, message in (
        (
            "tests.Pair",
            "tests.Pear",
            "tests.Pear in pytree .*is not registered.* Import what defines",
        ),
        (
            "quantfx_test.twice",
            "other.twice",
            "no operator 'other.twice.default' .* import that library",
        ),
    ):
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(tmp_path / "other", "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content.replace(found.encode(), absent.encode()))
        with pytest.raises(FileError, match=message):
            quantfx.load(tmp_path / "other")


def test_a_container_without_a_name_for_files(tmp_path: Path) -> None:
    torch.export.register_dataclass(Anonymous)
    with pytest.raises(
        FileError, match="holds? a container that has no form in files.*Anonymous.*: register"
    ):
        quantized(
            seeded(TakesPair), Anonymous(ROWS, ROWS), calibration=[{"pair": Anonymous(ROWS, ROWS)}]
        ).save(tmp_path / "file")
