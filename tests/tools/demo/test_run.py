from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from quantfx.tools.demo.run import Subject, run
from quantfx.tools.models.digits import DigitsRun


def test_the_demo_runs_on_any_classifier(tmp_path: Path, digits: DigitsRun) -> None:
    subject = Subject(
        "A small network on scikit-learn's digits",
        digits.model,
        digits.train_images[:32],
        digits.test_images[:64],
    )
    console = Console(file=StringIO(), width=100)
    measured = run(tmp_path, subject, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    for part in (
        "32 images to calibrate",
        "planned",
        "converted",
        "lowered",
        "top-1 agreement",
        "signal to noise",
    ):
        assert part in text
    assert measured.quantized_bytes < 0.4 * measured.float_bytes
    same = measured.float_outputs.argmax(1) == measured.compiled_outputs.argmax(1)
    assert float(same.float().mean()) > 0.95
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"before", "after"}
