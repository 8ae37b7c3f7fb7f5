from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from quantfx.passes.config.config import Config
from quantfx.passes.config.spec_change import SpecChange, change_of, over
from quantfx.passes.errors import ConfigError, SpecError
from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.quant.spec import CastSpec, QuantSpec
from tests.refusals import refused

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
        ({"observr": "mse"}, "unknown-name: observr"),
        ({}, "config-value"),
        ({"dtype": "int88"}, "unknown-name: int88"),
        ({"symmetric": 1}, "config-value: symmetric"),
        ({"quant_min": True}, "config-value: quant_min"),
        (
            {"observer": "minmax"},
            "unknown-name: minmax",
        ),
        (SpecChange(dtype="int88"), "unknown-name: int88"),
        ({1: 2}, "unknown-name: 1"),
        ({"eps": 0}, "config-value: eps"),
        ({"eps": float("nan")}, "config-value: eps"),
        ({"eps": "small"}, "config-value: eps"),
        (3, "config-value: 3"),
    ],
)
def test_mistakes(given: Any, message: str) -> None:
    with refused(message, ConfigError):
        change_of(given)


@pytest.mark.parametrize("observer", [MinMaxObserver, lambda spec, label: None])
def test_an_observer_of_ones_own_belongs_to_the_backend(observer: Any) -> None:
    with refused("config-value: observer", ConfigError, fix="backend.with_specs(", says="is text"):
        Config("static").activations(observer=observer)


def test_what_does_not_fit() -> None:
    with refused("spec-observer", SpecError, site="histogram"):
        SpecChange(observer="histogram").apply(
            QuantSpec(torch.int8, -128, 127, axis=0, observer="min_max")
        )
    with refused("no-integers", SpecError, site="f16 cast"):
        SpecChange(observer="mse").apply(CastSpec(torch.float16))
    with refused("no-observer", SpecError, site="u8[0,255] affine dynamic"):
        SpecChange(observer="mse", eps=0.1).apply(replace(ACT, dynamic=True))
