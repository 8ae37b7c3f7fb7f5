from __future__ import annotations

from pathlib import Path

import pytest
import torch

import quantfx
from tests.cli.sample import run


def test_a_program_and_a_file_of_data(written: Path) -> None:
    said = (written / "said.txt").read_text()
    assert "conv2d" in said
    assert "report.text(full=True), or --full" in " ".join(said.split())
    assert f"written: {written / 'net.quantfx'}" in said.replace("\n", "")
    result = quantfx.load(written / "net.quantfx")
    assert (result.backend.name, result.report.planned) == ("x86", 2)
    x = torch.randn(4, 3, 8, 8)
    module = torch.export.load(written / "net.pt2").module()
    torch.testing.assert_close(result.quantized(x), module(x), rtol=0, atol=0.05)


@pytest.mark.usefixtures("folder")
def test_a_function_has_its_own_data(folder: Path) -> None:
    ended = run("quantize", "own_cli:net", "-o", "new/net.quantfx", "--full", "--no-input-values")
    assert ended.exit_code == 0, ended.output
    assert "passes (ms)" in ended.stdout
    assert quantfx.load(folder / "new" / "net.quantfx").report.planned == 2


@pytest.mark.usefixtures("folder")
def test_a_mode_needs_no_data_and_an_example_may_be_given(folder: Path) -> None:
    torch.save([torch.randn(2, 3, 8, 8)], folder / "example.pt")
    ended = run(
        "quantize", "own_cli:net", "-o", "dynamic.quantfx", "--config", "dynamic",
        "--example", "example.pt", "--backend", "x86",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    result = quantfx.load(folder / "dynamic.quantfx")
    assert {row.label for row in result.report.rows} == {"linear, dynamic"}
    assert result.quantized(torch.randn(2, 3, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["net.pt2"], 1, "calibration"),
        (["none.pt2", "--calibration", "images.npz"], 1, "none.pt2"),
        (["net.pt2", "--calibration", "none.npz"], 1, "none.npz: there is no such file or folder"),
        (["net.onnx"], 1, "'net.onnx' is neither a .pt2 file nor package.module:function"),
        (["own_cli:nett"], 1, "'own_cli' has no function 'nett' (did you mean 'net'?)"),
        (["own_cli:broken"], 1, "own_cli:broken raised KeyError: 'weights'"),
        (["own_cli:net", "--backend", "x68"], 1, "no backend 'x68' (did you mean 'x86'?)"),
        (["own_cli:net", "--config", "dynamik"], 1, "did you mean 'dynamic'?"),
        (["own_cli:net", "--rows", "0"], 2, "--rows"),
        ([], 2, "Missing argument 'MODEL'"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], status: int, says: str, folder: Path
) -> None:
    ended = run("quantize", *arguments, "-o", "new/out.quantfx")
    assert (ended.exit_code, ended.stdout) == (status, "")
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (folder / "new").exists()
