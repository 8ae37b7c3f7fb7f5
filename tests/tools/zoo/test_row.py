from __future__ import annotations

import math

from quantfx.tools.zoo.row import Row, Stage
from tests.tools.zoo.sample import TRANSPOSED, sample_row


def test_a_row_is_read_as_it_was_written() -> None:
    row = sample_row()
    row.floats.append(TRANSPOSED)
    row.decibels["module"] = math.inf
    assert Row.from_json(row.to_json()) == row


def test_seconds_are_those_of_stages_that_were_done() -> None:
    row = sample_row()
    row.stages["auto"] = Stage("refused", 3.0, "no")
    assert row.seconds("quantize") == 3.0
    assert row.seconds("auto") is None
    assert Row("a", "timm").seconds("build") is None
