"""Ranges that hold a given value."""

from __future__ import annotations

import pytest
import torch

from quantfx.passes.observers.including import MustInclude
from quantfx.passes.quant.spec import QuantSpec

SPEC = QuantSpec(torch.uint8, 0, 255, observer=MustInclude(1.0), eps=2**-23)


@pytest.mark.parametrize("values", [[0.25], [-0.5, 0.1], [3.0], [0.0]])
def test_the_range_holds_zero_the_values_and_the_one_asked_for(values: list[float]) -> None:
    observer = MustInclude(1.0)(SPEC, "weight")
    observer(torch.tensor(values))
    qparams = observer.calculate_qparams()
    scale, zero_point = float(qparams.scale), int(qparams.zero_point)
    for value in (0.0, 1.0, *values):
        integer = round(value / scale) + zero_point
        assert 0 <= integer <= 255
        assert abs((integer - zero_point) * scale - value) <= scale / 2 * 1.001


def test_nothing_seen_is_an_error_all_the_same() -> None:
    observer = MustInclude(1.0)(SPEC, "weight")
    assert not observer.observed
