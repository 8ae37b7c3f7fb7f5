from __future__ import annotations

import pytest

from quantfx.patterns.quant import Quant, parse_quant, quant_of


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


def test_a_template_made_by_hand_is_told_the_forms() -> None:
    assert quant_of("same(x)").is_same
    with pytest.raises(ValueError, match=r"quant 'same' is not of the form spec, same\(role\)"):
        quant_of("same")
