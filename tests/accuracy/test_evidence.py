"""What makes evidence thin, with the figures."""

from __future__ import annotations

from quantfx.accuracy.evidence import thin_evidence
from quantfx.accuracy.goal import Goal
from quantfx.accuracy.score import Score
from quantfx.accuracy.split import split_items

GOAL = Goal(at_least=0.9)


def reasons(items: int, chosen: Score, exact: float = 1.0) -> list[str]:
    return list(thin_evidence(GOAL, split_items(items, 0), items, Score(exact), chosen))


def test_enough_is_not_thin() -> None:
    assert reasons(40, Score(0.95, 0.02)) == []


def test_few_items_are_told() -> None:
    assert "7 items" in reasons(7, Score(0.95, 0.02))[0]
    assert len(reasons(2, Score(0.95, None))) == 3


def test_an_error_larger_than_the_distance_to_float_is_told() -> None:
    (reason,) = reasons(40, Score(0.89, 0.02), exact=0.91)
    assert "0.02" in reason
    assert "0.01 above" in reason
    assert reasons(40, Score(0.8, 0.02), exact=0.85) == [], "float is below: more would not help"


def test_what_is_too_near_to_the_goal_says_how_many_items_would_tell() -> None:
    (reason,) = reasons(40, Score(0.91, 0.02))
    assert "160 items" in reason or "159 items" in reason or "161 items" in reason


def test_no_spread_at_all_is_told() -> None:
    assert "so the standard error is unknown" in reasons(40, Score(1.0, 0.0))[0]
