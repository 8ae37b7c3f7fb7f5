"""What tests of the command line share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.sample import run, write_sample


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a user, and what ``quantfx quantize`` made of them; nobody changes them."""
    folder = tmp_path_factory.mktemp("cli")
    write_sample(folder)
    result = run(
        "quantize", folder / "net.pt2", "--calibration", folder / "images.npz", "--rows", "4",
        "--target", "avx2", "-o", folder / "net.quantfx",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (folder / "said.txt").write_text(result.stdout)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, and the folder that commands run in."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path
