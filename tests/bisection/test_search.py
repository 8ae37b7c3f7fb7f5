"""Halving and ddmin over what fails."""

from __future__ import annotations

import pytest

from quantfx.bisection.search import Budget, first_bad, smallest


@pytest.mark.parametrize("first", [1, 2, 7, 100])
def test_the_first_that_fails_is_found_in_as_many_steps_as_it_has_digits(first: int) -> None:
    asked: list[int] = []

    def fails(count: int) -> bool:
        asked.append(count)
        return count >= first

    assert first_bad(100, fails) == first
    assert len(asked) <= 7


@pytest.mark.parametrize("wanted", [{0}, {31}, {3, 17}, {0, 15, 16, 31}, set(range(32))])
def test_a_smallest_set_is_found(wanted: set[int]) -> None:
    found, done = smallest(range(32), lambda some: wanted <= set(some), Budget(1000))
    assert set(found) == wanted
    assert done


def test_no_item_of_it_can_be_left_out() -> None:
    def fails(some: list[int]) -> bool:
        return len(some) >= 3 or 5 in some

    found, _ = smallest(range(9), fails, Budget(1000))
    assert fails(found)
    assert not any(fails([each for each in found if each != left]) for left in found)


def test_the_budget_ends_it() -> None:
    asked: list[int] = []

    def fails(some: list[int]) -> bool:
        asked.append(len(some))
        return {3, 17} <= set(some)

    found, done = smallest(range(32), fails, Budget(4))
    assert len(asked) == 4
    assert not done
    assert {3, 17} <= set(found)
