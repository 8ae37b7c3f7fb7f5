"""Every kernel of the direct runtime against the q/dq graph, on random configurations."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quantfx.backends.direct.region import Region
from tests.backends.direct.qdq_cases import MAKERS, Case

Maker = Callable[[int], Case]


def check(case: Case) -> None:
    region = Region(case.graph)
    expected = case.graph(*case.inputs)
    for one, other in zip(region(*case.inputs), expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if one.dtype.is_floating_point:
            largest = float(other.abs().max()) + 1e-3
            assert float((one - other).abs().max()) <= 1e-5 * largest
        else:
            assert int((one.int() - other.int()).abs().max()) <= 1


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("part", range(4))
def test_is_within_a_step(make: Maker, part: int) -> None:
    for seed in range(part * 10, part * 10 + 10):
        check(make(seed))


@pytest.mark.sweep
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("part", range(20))
def test_is_within_a_step_a_thousand_times(make: Maker, part: int) -> None:
    for seed in range(1000 + part * 50, 1050 + part * 50):
        try:
            check(make(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
