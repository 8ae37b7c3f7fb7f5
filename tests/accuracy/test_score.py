"""Standard errors, held against what is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from quantfx.accuracy.score import Score, error_of_folds, error_of_share, error_without_each


def test_the_jackknife_of_a_mean_is_the_error_of_the_mean() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without = [(float(values.sum()) - float(each)) / 39 for each in values]
    expected = float(values.std()) / math.sqrt(40)
    assert error_without_each(without) == pytest.approx(expected)
    assert error_of_folds(values.tolist()) == pytest.approx(expected)


def test_equal_values_are_certain_and_one_tells_nothing() -> None:
    assert error_without_each([math.inf, math.inf]) == 0
    assert error_without_each([1.0]) is None
    assert error_of_folds([1.0]) is None
    assert error_without_each([1.0, math.inf]) is None


def test_a_share_of_all_is_not_certain() -> None:
    assert error_of_share(20, 20) > error_of_share(200, 200) > 0
    assert error_of_share(500, 1000) == pytest.approx(math.sqrt(0.25 / 1000), rel=0.01)


def test_lower_is_a_standard_error_less() -> None:
    assert Score(3.0, 0.5).lower == 2.5
    assert Score(3.0).lower == 3.0
