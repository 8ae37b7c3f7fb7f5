"""The evidence for an answer: number of items, uncertainty, and the judgement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from quantfx.accuracy.goal import Goal
from quantfx.accuracy.score import Score
from quantfx.accuracy.split import Split

# With fewer, a quarter of the items is one or none.
_FEW = 8


@dataclass(frozen=True)
class Evidence:
    """The evidence for an answer.

    Attributes:
        metric: Name of the metric.
        items: Number of items.
        fit: Number of items for ranges, repairs and sensitivities.
        choose: Number of items that recipes were compared on.
        judge: Number of items that judged the answer.
        exact: Score of the float model on the items that choose.
        chosen: Score of the answer on the items that chose it.
        judged: Score of the answer on the items that judge.
        refused: Recipes that held on the items that choose but not on those that judge.
        calls: Calls of the metric in this process.
        seconds: Time that these calls took.
        thin: Why the evidence is thin, with figures; empty if it is not.
    """

    metric: str
    items: int
    fit: int
    choose: int
    judge: int
    exact: Score
    chosen: Score
    judged: Score
    refused: tuple[str, ...]
    calls: int
    seconds: float
    thin: tuple[str, ...]


def thin_evidence(
    goal: Goal, split: Split, items: int, exact: Score, chosen: Score
) -> Iterator[str]:
    """Yield reasons why the evidence is thin.

    Args:
        goal: The goal of the search.
        split: The items.
        items: Number of items.
        exact: Score of the float model on the items that choose.
        chosen: Score of the answer on the same items.
    """
    if items < _FEW:
        yield f"{items} items are few to calibrate, choose and judge with: give at least {_FEW}"
    if split.overlaps:
        yield "some items that judge also calibrate or choose"
    error = chosen.error
    if error is None:
        yield "the standard error is unknown: it takes values of several items"
    elif error == 0:
        yield "all parts of the data scored the same, so the standard error is unknown"
    elif goal.at_least is not None:
        distance, spare = exact.value - goal.at_least, chosen.value - goal.at_least
        if error > distance >= 0:
            yield (
                f"the standard error on {len(split.choose)} items is {error:.2g}, and the float "
                f"model is only {distance:.2g} above the goal: give more items"
            )
        if 0 < spare < error:
            more = math.ceil(items * (error / spare) ** 2)
            yield (
                f"the answer is {spare:.2g} above the goal, and the standard error {error:.2g}: "
                f"some {more:,} items instead of {items} would settle it"
            )
