"""What is no file of ours, damaged, foreign, hostile or for another machine is refused by name."""

from __future__ import annotations

import contextlib
import pickle
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

import quantfx
from docs.examples.extend.npu import NPU
from quantfx import QuantfxError, Result, backends
from quantfx.passes.errors import ContractError, FileError
from quantfx.saving.file import FORMAT
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused, warned
from tests.saved_files import Edit, members, packed, rewritten, small_file
from tests.saved_models import CASES, IMAGE, ROWS, quantized


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_file(tmp_path_factory.mktemp("saved") / "model.quantfx")


# ---- what is no file of ours


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with refused("no-such-file", FileError, site="absent"):
        quantfx.load(tmp_path / "absent")
    with refused("not-a-file", FileError, fix="Result.save"):
        quantfx.load(str(tmp_path))
    assert issubclass(FileError, QuantfxError)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"P", bytes(range(256)) * 9, pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with refused("foreign-file", FileError, site="file", says="" if content else "empty"):
            quantfx.load(path)
    torch.save({"a": ROWS}, path)
    with refused("foreign-file", FileError, site="file", says=r"torch\.save"):
        quantfx.load(path)
    program = torch.export.export(nn.Linear(8, 8), (ROWS,))
    torch.export.save(program, tmp_path / "program.pt2")
    with refused("foreign-file", FileError, site="program.pt2", says=r"torch\.export\.save"):
        quantfx.load(tmp_path / "program.pt2")
    with refused("foreign-file", FileError, site="file", fix="Result.save"):
        quantfx.load(packed(path, {"readme.txt": b"hello"}))


# ---- damage


def test_truncated_files(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9, 0.999):
        (tmp_path / "file").write_bytes(whole[: int(share * len(whole))])
        with refused("damaged-file", FileError, site="file"):
            quantfx.load(tmp_path / "file")


def test_a_flipped_bit_is_found_wherever_it_is(saved: Path, tmp_path: Path) -> None:
    whole = bytearray(saved.read_bytes())
    expected = quantfx.load(saved).quantized(ROWS)
    # Some bits mean nothing: the time of day of a member, say. None may change a result.
    places = range(7, len(whole), 53)
    harmless = 0
    for place in places:
        whole[place] ^= 16
        (tmp_path / "file").write_bytes(whole)
        whole[place] ^= 16
        with contextlib.suppress(FileError):
            assert torch.equal(quantfx.load(tmp_path / "file").quantized(ROWS), expected), place
            harmless += 1
    assert harmless < 0.1 * len(places)


def test_a_flipped_bit_of_a_weight(saved: Path, tmp_path: Path) -> None:
    weight = quantfx.load(saved).quantized.get_buffer("0.weight_s8")
    whole = bytearray(saved.read_bytes())
    content = bytes(weight.flatten().view(torch.uint8).tolist())
    assert whole.count(content) == 1
    whole[whole.index(content) + 5] ^= 1
    (tmp_path / "file").write_bytes(whole)
    with refused("damaged-file", FileError, site="file", says=r"CRC-32.*'tensors\.pt'"):
        quantfx.load(tmp_path / "file")


def _drop_node(data: dict[str, Any]) -> None:
    del data["graph"]["nodes"][1]


def _drop_tensor(data: dict[str, Any]) -> None:
    next(iter(data["graph"]["state"].values()))["tensor"] = "99"


@pytest.mark.parametrize(
    ("member", "edit"),
    [
        ("graph.json", _drop_node),
        ("graph.json", _drop_tensor),
        ("graph.json", lambda data: data.pop("graph")),
        ("graph.json", lambda data: data.update(sizes=[])),
        ("quantfx.json", lambda data: data.pop("report")),
        ("quantfx.json", lambda data: data.pop("format")),
        ("quantfx.json", lambda data: data["inputs"].pop("structure")),
        ("quantfx.json", lambda data: data["report"].update(fancy=1)),
    ],
)
def test_texts_that_do_not_fit(member: str, edit: Edit, saved: Path, tmp_path: Path) -> None:
    with refused("damaged-file", FileError):
        quantfx.load(rewritten(saved, tmp_path / "file", member, edit))


def test_missing_members(saved: Path, tmp_path: Path) -> None:
    for name in ("graph.json", "tensors.pt"):
        parts = members(saved)
        del parts[name]
        with refused("damaged-file", FileError, site="file", says=f"'{name}'"):
            quantfx.load(packed(tmp_path / "file", parts))


# ---- versions


def test_another_format(saved: Path, tmp_path: Path) -> None:
    def edit(data: dict[str, Any]) -> None:
        data |= {"format": 7, "quantfx": "9.1"}

    with refused("file-version", FileError, site="file", says=rf"9\.1 wrote.*7, and.*{FORMAT}\."):
        quantfx.load(rewritten(saved, tmp_path / "file", "quantfx.json", edit))


def test_an_operator_of_another_torch(saved: Path, tmp_path: Path) -> None:
    def newer(data: dict[str, Any]) -> None:
        data["torch"] = "9.9.0"

    def operator(data: dict[str, Any]) -> None:
        next(n for n in data["graph"]["nodes"] if n["name"] == "relu")["target"] = (
            "aten.rellu.default"
        )

    path = rewritten(saved, tmp_path / "newer", "quantfx.json", newer)
    quantfx.load(path)  # another torch by itself is no reason
    site = "node 'relu': aten.rellu.default"
    with refused("unknown-name", FileError, site=site, says=r"aten\.relu\.default.*torch 9\.9\.0"):
        quantfx.load(rewritten(path, tmp_path / "file", "graph.json", operator))


# ---- for this machine


def test_sites_that_would_saturate_here_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    full_range = backends.get(
        "x86", target="any", weight_observer="min_max"
    )  # for machines with VNNI
    model = seeded(lambda: nn.Linear(8, 8))
    nn.init.ones_(model.weight)
    result = quantized(model, ROWS, backend=full_range, strict=False)
    result.save(path)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with refused("saturates", ContractError, site="linear", says=r"1 site\(s\).*\(avx2"):
        quantfx.load(path)
    with warned("saturates", site="linear"):
        loaded = quantfx.load(path, strict=False)
    assert loaded.report.target == "any", "what it was quantized for"
    quantized(model, ROWS).save(path)  # for this host
    assert quantfx.load(path).report.target == "avx2"


def test_xpu_is_loaded_and_still_not_run_here(tmp_path: Path) -> None:
    CASES["xpu"]().save(tmp_path / "file")
    loaded = quantfx.load(tmp_path / "file")
    assert loaded.report.unverified == "no XPU"
    for run in (lambda: loaded.module(IMAGE), loaded.compile, loaded.compare_sites):
        with refused("not-here", says="not for the int8 kernels"):
            run()


def test_backends_of_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    result = quantized(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardsigmoid()), IMAGE, backend=NPU)
    result.save(path)
    with refused("unknown-name", FileError, site="npu", fix="backend=", says=r"'xpu'\?\)"):
        quantfx.load(path)
    loaded = quantfx.load(path, backend=NPU)
    assert loaded.report == result.report
    assert torch.equal(loaded.quantized(IMAGE), result.quantized(IMAGE))
    with refused("other-backend", FileError, site="npu", fix="backend.renamed", says="'x86' is"):
        quantfx.load(path, backend="x86")
    with refused("unknown-name", site="x68", fix="x86"):
        quantfx.load(path, backend="x68")


def test_a_backend_whose_lowering_fails_names_the_file(saved: Path) -> None:
    with (
        mock.patch(
            "quantfx.backends.backend.Backend.lowering",
            side_effect=QuantfxError("broken", rule="no-kernels"),
        ),
        refused("no-kernels", FileError, site="model.quantfx"),
    ):
        quantfx.load(saved)


def test_a_file_can_be_moved_and_its_inputs_belong_to_the_result(
    saved: Path, tmp_path: Path
) -> None:
    shutil.copy(saved, tmp_path / "file")
    loaded = quantfx.load(tmp_path / "file")
    (tmp_path / "file").unlink()
    assert isinstance(loaded, Result)
    assert torch.equal(loaded._inputs.args[0], ROWS)
    assert str(loaded._inputs.dynamic_shapes) == "({0: Dim('b', min=0)},)"
