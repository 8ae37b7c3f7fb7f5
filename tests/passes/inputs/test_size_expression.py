from __future__ import annotations

import pytest

from quantfx.passes.inputs.size_expression import UnknownExpression, size_names, size_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2*s0 + 1", 7),
        ("s0 - s1", -2),
        ("(s1//2)", 2),
        ("s0**2", 9),
        ("Eq(Mod(s1, 2), 1)", True),
        ("Ne(s0, 3)", False),
        ("Max(s0, s1)", 5),
        ("s0 >= 4", False),
        ("-s0", -3),
        ("(IntTrueDiv(s0, 2)) > 1.5", False),
        ("s1/2 > 2.4", True),
        ("1.5*ToFloat(s0) > 4.0", True),
        ("FloatPow(ToFloat(s0), 0.5) > 1.7", True),
        ("RoundToInt(IntTrueDiv(s1, 2)) <= 2", True),
        ("CeilToInt(IntTrueDiv(s1, 2))", 3),
        ("FloorToInt(IntTrueDiv(s1, 2))", 2),
        ("TruncToInt(IntTrueDiv(-s1, 2))", -2),
        ("(s0 > 2) & (s0 < 9)", True),
        ("(s0 > 4) | (s0 < 2)", False),
        ("~(s0 > 4)", True),
    ],
)
def test_expressions_are_computed(text: str, expected: int) -> None:
    assert size_value(text, {"s0": 3, "s1": 5}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "s9",
        "s0.real",
        "s0 ==",
        "open(s0)",
        "'a' * s0",
        "s0 % 0",
        "1e400**s0 % 0",
        "s0(1)",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UnknownExpression):
        size_value(text, {"s0": 3})


def test_names_are_those_of_sizes() -> None:
    assert size_names("Eq(Mod(s0, 4), s1)") == {"s0", "s1"}
