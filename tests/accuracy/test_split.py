"""Items are split by a seed, and kept apart where there are enough."""

from __future__ import annotations

import pytest

from quantfx.accuracy.split import split_items


@pytest.mark.parametrize("count", [3, 4, 7, 8, 33])
def test_half_fits_and_nothing_is_used_twice(count: int) -> None:
    split = split_items(count, 0)
    assert sorted([*split.fit, *split.choose, *split.judge]) == list(range(count))
    assert len(split.fit) == count // 2
    assert len(split.choose) - len(split.judge) in (0, 1)
    assert not split.overlaps


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_items_are_used_twice(count: int) -> None:
    split = split_items(count, 0)
    assert split.fit
    assert split.choose
    assert split.judge
    assert split.overlaps


def test_the_seed_decides() -> None:
    assert split_items(40, 1) == split_items(40, 1)
    assert split_items(40, 1) != split_items(40, 2)
    assert split_items(40, 1).part("judge") == split_items(40, 1).judge
