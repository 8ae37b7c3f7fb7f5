"""On what an answer stands: how many items, how certain, and what was judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from quantfx.accuracy.goal import Goal
from quantfx.accuracy.score import Score
from quantfx.accuracy.split import Split

# Below, a quarter of the items is one or none.
_FEW = 8


@dataclass(frozen=True)
class Evidence:
    """What an answer stands on.

    Attributes:
        metric: Its name.
        items: How many there were.
        fit: Of them, those that ranges, repairs and sensitivities come from.
        choose: Those that recipes were compared on.
        judge: Those that the answer is told on.
        exact: The float model on what chooses.
        chosen: The answer on what chose it.
        judged: The answer on what judges.
        refused: Recipes that held on what chooses and not on what judges.
        calls: Of the metric, in this process.
        seconds: What these took.
        thin: Why it is little to go by, with the figures; empty if it is enough.
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
    """Yield why it is little to go by.

    Args:
        goal: What is asked for.
        split: The items.
        items: How many there are.
        exact: The float model on what chooses.
        chosen: The answer on the same.
    """
    if items < _FEW:
        yield f"{items} items are few to calibrate, choose and judge with: give {_FEW} at least"
    if split.overlaps:
        yield "some items calibrate or choose and judge as well"
    error = chosen.error
    if error is None:
        yield "nothing tells a standard error: that takes a number for each of several items"
    elif error == 0:
        yield "all parts of the data scored the same, which tells no standard error"
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
                f"some {more:,} items instead of {items} would tell"
            )
