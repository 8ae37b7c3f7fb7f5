from __future__ import annotations

from dataclasses import replace

from quantfx.tools.zoo.faults import Explained, Explanation, GoodReason
from quantfx.tools.zoo.row import Row, Stage
from quantfx.tools.zoo.table import page, table
from tests.tools.zoo.sample import TRANSPOSED, sample_row

WEAK = replace(sample_row("weak"), decibels={"module": 12.0})
REFUSED = Row("refused", "timm", stages={"quantize": Stage("refused", 1.0, "CaptureError:\n  no")})


def test_a_row_of_figures() -> None:
    lines = table([sample_row(), REFUSED]).splitlines()
    assert lines[2] == (
        "| resnet18 | 11.7 | 30 / 30 / 30 | 97% | 0 | 31 | 31 | 31 | 31 | 81 | 3.0 | 5.0 | 7.0 "
        "| abc1234 |"
    )
    assert lines[3] == "| refused |" + " - |" * 13
    assert len({line.count("|") for line in lines}) == 1


def test_the_page_explains_each_fault_or_lists_it() -> None:
    known = Explained((), (Explanation(("weak",), "module: 12.0", "It is a test."),))
    text = page([sample_row(), WEAK, REFUSED], known, "here")
    assert "3 networks: 1 without a fault, 1 explained, 1 failing." in text
    failing, explained = text.split("## Failing")[1].split("## Explained")
    assert "- **refused**: quantize: refused: CaptureError: no" in failing
    assert "- **weak**: module: 12.0 dB — It is a test." in explained


def test_the_page_says_what_may_stay_float() -> None:
    row = replace(sample_row(), floats=[TRANSPOSED])
    why = GoodReason("aten.conv_transpose1d", "no kernel", "oneDNN has none.")
    text = page([row], Explained((why,)), "here")
    assert "- `aten.conv_transpose1d.default`: oneDNN has none. (resnet18 x4)" in text
    assert "| 97% | 4 |" in text
    assert "## Failing" not in text


def test_the_page_names_explanations_that_are_no_longer_needed() -> None:
    old = Explained((), (Explanation(("resnet18",), "auto: 3", "It was so."),))
    text = page([sample_row()], old, "here")
    assert "- resnet18: 'auto: 3'; take it out of tools/zoo/explained.toml" in text
