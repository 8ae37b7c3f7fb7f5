from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from quantfx.passes.config.spec_change import SpecChange, change_of, over
from quantfx.passes.errors import ConfigError, SpecError
from quantfx.passes.quant.spec import CastSpec, QuantSpec

ACT = QuantSpec(torch.uint8, 0, 255)


def test_a_change_leaves_the_rest() -> None:
    assert SpecChange(observer="min_max").apply(ACT) == QuantSpec(
        torch.uint8, 0, 255, observer="min_max"
    )
    assert str(SpecChange(quant_max=127, symmetric=True).apply(ACT)) == "u8[0,127] symmetric"


def test_a_dtype_brings_its_range() -> None:
    assert str(SpecChange.of({"dtype": torch.int8}).apply(ACT)) == "s8[-128,127] affine"
    narrow = SpecChange.of({"dtype": "int8", "quant_min": -127})
    assert str(narrow.apply(ACT)) == "s8[-127,127] affine"


def test_a_later_change_decides() -> None:
    first, second = SpecChange(observer="min_max", eps=0.1), SpecChange(observer="mse")
    assert over(first, second) == SpecChange(observer="mse", eps=0.1)
    assert str(over(first, second)) == "observer='mse', eps=0.1"


def test_false_and_zero_are_changes() -> None:
    assert SpecChange(symmetric=False, quant_min=0).options() == {
        "symmetric": False,
        "quant_min": 0,
    }


def test_what_a_caller_may_give() -> None:
    assert change_of(None) == change_of("float") == "float"
    assert change_of({"observer": "mse"}) == change_of(SpecChange(observer="mse"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"observr": "mse"}, "unknown option 'observr' (did you mean 'observer'?)"),
        ({}, "nothing to change is given"),
        ({"dtype": "int88"}, "dtype 'int88' (did you mean 'int8'?)"),
        ({"symmetric": 1}, "symmetric = 1 is not of type bool"),
        ({"quant_min": True}, "quant_min = True is not of type int"),
        (
            {"observer": "minmax"},
            "no observer 'minmax' (did you mean 'min_max'?); one of ('histogram', ",
        ),
        (SpecChange(dtype="int88"), "dtype 'int88' (did you mean 'int8'?)"),
        ({1: 2}, "unknown option '1'"),
        ({"eps": 0}, "eps = 0 is not positive and finite"),
        ({"eps": float("nan")}, "eps = nan is not positive and finite"),
        ({"eps": "small"}, "eps = 'small' is not of type float or int"),
        (3, "3 is neither options"),
    ],
)
def test_mistakes(given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        change_of(given)
    assert message in str(error.value)


def test_what_does_not_fit() -> None:
    with pytest.raises(SpecError, match="a per-channel spec observes with"):
        SpecChange(observer="histogram").apply(
            QuantSpec(torch.int8, -128, 127, axis=0, observer="min_max")
        )
    with pytest.raises(SpecError, match="'f16 cast' is no integer spec"):
        SpecChange(observer="mse").apply(CastSpec(torch.float16))
    with pytest.raises(
        SpecError, match="observes nothing.*: leave out observer and eps, or choose"
    ):
        SpecChange(observer="mse", eps=0.1).apply(replace(ACT, dynamic=True))
