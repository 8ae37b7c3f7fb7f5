"""The split of items: some calibrate, some choose between recipes, some judge the choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Part = Literal["choose", "judge"]


@dataclass(frozen=True)
class Split:
    """Item numbers by their use, each in the order given.

    Attributes:
        fit: Items for ranges, repairs and sensitivities.
        choose: Items that recipes are compared on.
        judge: Items that the answer is scored on; they choose nothing, but may refuse an answer.
    """

    fit: tuple[int, ...]
    choose: tuple[int, ...]
    judge: tuple[int, ...]

    def part(self, name: Part) -> tuple[int, ...]:
        """Return the items of ``choose`` or ``judge``."""
        return self.choose if name == "choose" else self.judge

    @property
    def overlaps(self) -> bool:
        """Whether there were too few items to keep the three apart."""
        return len({*self.fit, *self.choose, *self.judge}) < sum(
            map(len, (self.fit, self.choose, self.judge))
        )


def split_items(count: int, seed: int) -> Split:
    """Split items at random: half to fit, a quarter to choose and a quarter to judge.

    With three items each use gets one; with fewer, some items are used twice.

    Args:
        count: Number of items, at least one.
        seed: Equal seeds split equally.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    cut = max(count // 2, 1)
    rest = order[cut:] or order
    middle = (len(rest) + 1) // 2
    parts = (order[:cut], rest[:middle], rest[middle:] or rest)
    return Split(*(tuple(sorted(each)) for each in parts))
