"""Search for the first failing item of a sequence, and for a smallest failing set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def first_bad(count: int, fails: Callable[[int], bool], *, good: int = 0) -> int:
    """Return the smallest number of leading items that fails, as halving finds it.

    Args:
        count: A number of leading items that fails.
        fails: Whether that many leading items fail.
        good: A number of leading items that does not fail.
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
    """The number of trials that are left.

    Args:
        left: The number at the start.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> bool:
        """Take one trial; return whether one was left."""
        self.left -= 1
        return self.left >= 0


def smallest(
    items: Sequence[T], fails: Callable[[list[T]], bool], budget: Budget
) -> tuple[list[T], bool]:
    """Return a part of ``items`` that fails, and whether no item of it can be left out (ddmin).

    Zeller and Hildebrandt 2002, by complements only: chunks are taken out, at first of half the
    items, then of fewer. When the budget is spent, the part reached so far is returned.

    Args:
        items: Items that fail together.
        fails: Whether a part of the items, in order, fails.
        budget: The trials that are left.
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
