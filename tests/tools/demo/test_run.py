from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

from quantfx.tools.demo.run import Subject, run
from quantfx.tools.doctor import programs
from quantfx.tools.models.digits import DigitsRun, train_digits


@pytest.fixture(scope="module")
def digits() -> DigitsRun:
    """Of two layers, which take less time to compile than those of the other tests."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

    return train_digits(make=make)


def subject(digits: DigitsRun, calibration: int = 32, test: int = 64) -> Subject:
    images = digits.train_images[:calibration], digits.test_images[:test]
    return Subject("A small network on scikit-learn's digits", digits.model, *images)


def test_the_demo_runs_on_any_classifier(tmp_path: Path, digits: DigitsRun) -> None:
    console = Console(file=StringIO(), width=100)
    measured = run(tmp_path, subject(digits), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    for part in (
        "32 images to calibrate",
        "planned",
        "converted",
        "lowered",
        "top-1 agreement",
        "signal to noise",
        "What next",
        (tmp_path / "report.html").resolve().as_uri(),
    ):
        assert part in text
    assert measured.compiled
    assert measured.quantized_bytes < 0.4 * measured.float_bytes
    same = measured.float_outputs.argmax(1) == measured.int8_outputs.argmax(1)
    assert float(same.float().mean()) > 0.95
    names = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert names - {"before", "after"} == {"report", "model"}


def test_without_a_compiler_and_graphviz_it_says_what_is_left_out(
    tmp_path: Path, digits: DigitsRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "INDUCTORS_COMPILER", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    console = Console(file=StringIO(), width=100)
    measured = run(tmp_path, subject(digits, 8, 8), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert (
        "result.compile() is left out, as Inductor cannot compile here (C++ compiler: none" in text
    )
    assert "Drawings are left out" in text
    assert not measured.compiled
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "model.quantfx"}
