"""Reasons and what helps against them."""

from __future__ import annotations

import pytest

from quantfx.passes.report.explain.explanation import Explanation
from quantfx.passes.report.explain.remedies import remedies

FLOAT = Explanation(
    site="matmul",
    graph="",
    node="matmul",
    kind="operator",
    op="aten.matmul.default",
    module="",
    module_class="",
    code=None,
    standing="float",
    verdict="",
)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (
            "quantized on request only: select it, config.op('matmul', 'static')",
            "config.op('matmul', 'static') in the config selects it",
        ),
        (
            "no dynamic template takes conv2d, only static (the config's default)",
            "write Config('dynamic').op('conv2d', 'static'), or config='static' for the whole model",
        ),
        (
            "no static template takes lstm, only dynamic, fp16 (the config's default)",
            "write Config().op('lstm', 'dynamic'), or config='dynamic' for the whole model",
        ),
        (
            "no static template takes lstm, only dynamic (rule module='1')",
            "let that rule of the config ask for 'dynamic'",
        ),
        (
            "its input mean is not the output of a quantized pattern",
            "quantize mean first: explain('mean') says what that needs",
        ),
        ("calibration never ran it: left float", "calibrate with batches that reach it"),
        ("x is overwritten in place by add_", "write add_ out of place in the model"),
        ("relu is kept float: rule op='relu'", "change rule op='relu' of the config"),
        ("x holds no elements", ""),
    ],
)
def test_a_reason_has_its_remedy(reason: str, remedy: str) -> None:
    assert remedies(FLOAT, reason, "x86") == ((remedy,) if remedy else ())
