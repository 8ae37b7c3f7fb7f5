"""Searches over what fails: the first of a sequence, and a smallest set. Nothing of graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def first_bad(count: int, fails: Callable[[int], bool], *, good: int = 0) -> int:
    """Return the smallest found number of first items that fails, by halving.

    Args:
        count: A number that fails.
        fails: Whether that many of the first items fail.
        good: A number that does not fail.
    """
    bad = count
    while bad - good > 1:
        middle = (good + bad) // 2
        if fails(middle):
            bad = middle
        else:
            good = middle
    return bad


class Budget:
    """How many more questions may be asked.

    Args:
        left: To begin with.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> bool:
        """Use one up; return whether there was one."""
        self.left -= 1
        return self.left >= 0


def smallest(
    items: Sequence[T], fails: Callable[[list[T]], bool], budget: Budget
) -> tuple[list[T], bool]:
    """Return a part of ``items`` that fails, and whether no item of it can be left out (ddmin).

    Zeller and Hildebrandt 2002, by complements only: chunks are taken out, of half the items at
    first, then of fewer. With the budget at its end, what was reached so far.

    Args:
        items: What fails.
        fails: Whether a part of them does, in their order.
        budget: Of questions.
    """
    kept, chunk = list(items), max(1, len(items) // 2)
    while kept:
        start, shrunk = 0, False
        while start < len(kept):
            rest = kept[:start] + kept[start + chunk :]
            if not budget.take():
                return kept, False
            if fails(rest):
                kept, shrunk = rest, True
            else:
                start += chunk
        if chunk == 1 and not shrunk:
            return kept, True
        chunk = max(1, min(chunk // 2, len(kept) // 2)) if not shrunk else min(chunk, len(kept))
    return kept, True
