"""The table of ``quantfx backends native``."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from quantfx.backends.quantized.rows import native_variant
from quantfx.cli import main
from quantfx.tools.drawing.native_table import native_table


def text(name: str) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        console.print(native_table(native_variant(name)))
    return capture.get()


def test_a_line_for_each_row_and_dtype() -> None:
    shown = text("native")
    assert "194 rows" in shown
    assert "213 lowered" in shown
    assert shown.count("nn.ConvTranspose2d") == 2
    lines = [line for line in shown.splitlines() if "torch.matmul" in line]
    assert len(lines) == 1
    for word in ("default_op_quint8", "different", "quantized.matmul", "none needed", "lowered"):
        assert word in lines[0]
    assert "no kernel: torch" in shown


def test_relatives(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backends", "native", "--variant", "onednn"]) == 0
    assert "221 rows" in capsys.readouterr().out


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backends", "native", "--variant", "onedn"]) == 1
    assert "did you mean 'onednn'" in " ".join(capsys.readouterr().err.split())
    assert main(["backends", "x86", "--variant", "onednn"]) == 1
    assert main(["backends", "nativ"]) == 1
    assert "did you mean 'native'" in " ".join(capsys.readouterr().err.split())
