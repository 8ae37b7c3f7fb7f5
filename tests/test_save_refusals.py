"""What cannot be written, and what files do not hold, is named; what others register is kept."""

from __future__ import annotations

import os
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.errors import FileError
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused
from tests.saved_models import ROWS, mlp, quantized


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    result = quantized(mlp(), ROWS)
    with refused("not-a-file", FileError, fix="name a file"):
        result.save(tmp_path)
    with refused("no-such-file", FileError):
        result.save(tmp_path / "absent" / "file")


def test_what_has_no_form_in_files_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    result = quantized(mlp(), ROWS)
    result.quantized.add_module("scale", nn.Identity())
    first = next(node for node in result.quantized.graph.nodes if node.op == "call_function")
    with result.quantized.graph.inserting_after(first):
        result.quantized.graph.call_module("scale", (first,))
    with refused("no-text-form", FileError, site="scale"):
        result.save(path)
    result.quantized.graph.erase_node(
        next(iter(result.quantized.graph.find_nodes(op="call_module")))
    )
    with result.quantized.graph.inserting_after(first):
        result.quantized.graph.call_function(os.system, ("true",))
    with refused("no-text-form", FileError, site="system"):
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
    with refused("no-text-form", FileError, site="1"):
        result.save(path)
    result._inputs.args[1]["one"] = ROWS.to_sparse()
    with refused("no-text-form", FileError, site="1", says=r"torch\.sparse_coo"):
        result.save(path)
    result = quantized(mlp(), ROWS)
    result.quantized.get_submodule("0").bias = nn.Parameter(torch.zeros(16, device="meta"))
    with refused("no-text-form", FileError, site="_0_bias", says=r"'0\.bias'"):
        result.save(path)
    with refused("no-text-form", FileError, site="file"):
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
    for found, absent, rule in (
        ("tests.Pair", "tests.Pear", "not-imported"),
        ("quantfx_test.twice", "other.twice", "unknown-name"),
    ):
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(tmp_path / "other", "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content.replace(found.encode(), absent.encode()))
        with refused(rule, FileError, fix="import", says=absent):
            quantfx.load(tmp_path / "other")


def test_a_container_without_a_name_for_files(tmp_path: Path) -> None:
    torch.export.register_dataclass(Anonymous)
    with refused("no-text-form", FileError, site="file"):
        quantized(
            seeded(TakesPair), Anonymous(ROWS, ROWS), calibration=[{"pair": Anonymous(ROWS, ROWS)}]
        ).save(tmp_path / "file")
