from __future__ import annotations

import pytest

from quantfx.patterns.quant import Quant, parse_quant


@pytest.mark.parametrize(
    ("text", "quant"),
    [
        ("act", Quant("act")),
        ("same(x)", Quant("", ("x",))),
        ("bias(x, w)", Quant("bias", ("x", "w"))),
        ("bias( x,w )", Quant("bias", ("x", "w"))),
        ("same", None),
        ("same(x, y)", None),
        ("bias()", None),
        ("bias(x,)", None),
        ("bias(x", None),
        ("Act", None),
    ],
)
def test_forms(text: str, quant: Quant | None) -> None:
    assert parse_quant(text) == quant


@pytest.mark.parametrize("text", ["act", "same(x)", "bias(x, w)"])
def test_a_quant_is_written_as_templates_write_it(text: str) -> None:
    assert str(parse_quant(text)) == text
