from __future__ import annotations

import sys
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from quantfx.cli.batches import first_batch, read_batches
from quantfx.passes.errors import CalibrationError, FileError
from tests.refusals import refused

X, Y = torch.arange(12.0).reshape(6, 2), torch.arange(6)


class Code:
    """Something that a pickle would make by running code."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('run')",)


def shapes(batch: object) -> object:
    if isinstance(batch, Tensor):
        return tuple(batch.shape)
    if isinstance(batch, dict):
        return {name: shapes(value) for name, value in batch.items()}
    assert isinstance(batch, tuple)
    return [shapes(value) for value in batch]


def test_numpy(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", X.numpy())
    numpy.savez(tmp_path / "one.npz", pixels=X.numpy())
    numpy.savez(tmp_path / "two.npz", X.numpy(), Y.numpy())
    numpy.savez(tmp_path / "named.npz", x=X.numpy(), y=Y.numpy())
    assert shapes(first_batch(tmp_path / "x.npy")) == (6, 2)
    assert shapes(first_batch(tmp_path / "one.npz")) == (6, 2)
    assert shapes(first_batch(tmp_path / "two.npz")) == [(6, 2), (6,)]
    assert shapes(first_batch(tmp_path / "named.npz")) == {"x": (6, 2), "y": (6,)}


def test_torch(tmp_path: Path) -> None:
    torch.save({"x": X, "flag": True}, tmp_path / "one.pt")
    torch.save([X, (X, Y)], tmp_path / "list.pt")
    (batch,) = read_batches(tmp_path / "one.pt")
    assert batch["flag"] is True
    assert [shapes(each) for each in read_batches(tmp_path / "list.pt")] == [(6, 2), [(6, 2), (6,)]]


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"x": X, "y": Y}, tmp_path / "x.safetensors")
    assert shapes(first_batch(tmp_path / "x.safetensors")) == {"x": (6, 2), "y": (6,)}


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    torch.save(X, tmp_path / "b.pt")
    numpy.save(tmp_path / "a.npy", Y.numpy())
    (tmp_path / "README.txt").write_text("of another kind")
    assert [shapes(each) for each in read_batches(tmp_path)] == [(6,), (6, 2)]


def test_rows_cut_every_tensor_of_a_batch(tmp_path: Path) -> None:
    torch.save({"x": X, "y": Y, "flag": True}, tmp_path / "x.pt")
    pieces = list(read_batches(tmp_path / "x.pt", rows=4))
    assert [(shapes(each["x"]), shapes(each["y"])) for each in pieces] == [
        ((4, 2), (4,)),
        ((2, 2), (2,)),
    ]
    assert torch.equal(torch.cat([each["x"] for each in pieces]), X)
    assert all(each["flag"] is True for each in pieces)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save([Code()], tmp_path / "code.pt")
    numpy.save(tmp_path / "code.npy", numpy.array([Code()], dtype=object), allow_pickle=True)
    for name in ("code.pt", "code.npy"):
        with refused("unreadable-file", FileError, site=name):
            list(read_batches(tmp_path / name))


def test_what_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    (tmp_path / "torn.npz").write_bytes(b"PK torn")
    torch.save([3], tmp_path / "number.pt")
    torch.save([], tmp_path / "none.pt")
    torch.save((X, Y[:3]), tmp_path / "uneven.pt")
    (tmp_path / "x.safetensors").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    for name, rule, kind in (
        ("gone.npz", "no-such-file", FileError),
        ("empty", "no-such-file", FileError),
        ("x.csv", "file-ending", FileError),
        ("torn.npz", "unreadable-file", FileError),
        ("number.pt", "calibration-form", CalibrationError),
        ("none.pt", "no-batches", CalibrationError),
        ("uneven.pt", "calibration-form", CalibrationError),
    ):
        with refused(rule, kind, site=name):
            first_batch(tmp_path / name, rows=2)
    with refused("missing-package", FileError, site="safetensors", fix="pip install safetensors"):
        first_batch(tmp_path / "x.safetensors")
