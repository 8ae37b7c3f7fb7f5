"""What a bisection refuses stays float, and is accounted for."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from quantfx.passes.pipeline.known_passes import own_passes
from quantfx.passes.pipeline.permits import (
    LEFT_FLOAT,
    Permit,
    Permits,
    is_refusing,
    may,
    permitting,
)
from tests import seeded_faults as faults
from tests import unchecked


def test_without_a_bisection_everything_is_permitted() -> None:
    assert may("lower", "conv2d", "conv2d_1")
    assert not is_refusing()


def test_what_is_asked_is_kept_once_and_in_order() -> None:
    granted = Permit("b", "t", "s")
    with permitting(Permits({granted})) as permits:
        assert not may("a")
        assert may("b", "t", "s")
        assert not may("a")
        assert is_refusing()
    assert permits.asked == {Permit("a"): False, granted: True}
    assert may("a")


@cache
def decisions() -> tuple[Permit, ...]:
    model, x = faults.conv_net()
    with permitting(Permits()) as permits:
        _ = unchecked.quantize(model, (x,), calibration=[x]).module
    return tuple(permits.asked)


@pytest.mark.filterwarnings("ignore::quantfx.QuantfxWarning")
def test_any_number_of_first_decisions_gives_a_strict_result_that_says_what_was_left() -> None:
    model, x = faults.conv_net()
    every = decisions()
    assert {each.by for each in every} >= {"fold-batch-norm", "annotate-conv", "propagate", "lower"}
    for count in range(0, len(every) - 6, 6):  # the last ones are kernels
        with permitting(Permits(every[:count])):
            result = unchecked.quantize(model, (x,), calibration=[x])
            with torch.no_grad():
                error = (result.module(x) - model(x)).abs().max()
        assert error < 0.2 * model(x).abs().max()
        left = [each.reason for each in result.report.skipped] + [
            each.reason for each in result.report.sites if each.status == "float"
        ]
        assert LEFT_FLOAT in left


@pytest.mark.filterwarnings("ignore::quantfx.QuantfxWarning")
@pytest.mark.parametrize("name", [each.name for each in own_passes() if each.optional])
def test_a_pass_that_is_optional_can_be_left_out(name: str) -> None:
    model, x = faults.conv_net()
    kept = [each for each in decisions() if each.by != name]
    with permitting(Permits(kept)):
        result = unchecked.quantize(model, (x,), calibration=[x])
        with torch.no_grad():
            error = (result.module(x) - model(x)).abs().max()
    assert error < 0.2 * model(x).abs().max()


def test_with_nothing_permitted_the_float_function_is_left() -> None:
    model, x = faults.conv_net()
    with permitting(Permits(())):
        result = unchecked.quantize(model, (x,), calibration=None)
    with torch.no_grad():
        assert torch.equal(result.module(x), model(x))
