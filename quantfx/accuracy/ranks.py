"""Work shared out over the processes of torch.distributed, or done by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import distributed

_Work = TypeVar("_Work")
_Done = TypeVar("_Done")


class Ranks:
    """The processes that search together; all make the same calls in the same order.

    Attributes:
        count: How many there are.

    Args:
        group: Of torch.distributed; None for this process alone.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self.count = 1 if group is None else distributed.get_world_size(group)
        self._own = 0 if group is None else distributed.get_rank(group)

    def map(self, do: Callable[[_Work], _Done], work: Sequence[_Work]) -> list[_Done]:
        """Return what ``do`` returns for each piece of work, of which each process does some."""
        mine = [do(each) for each in work[self._own :: self.count]]
        parts = self.gather(mine)
        return [parts[i % self.count][i // self.count] for i in range(len(work))]

    def gather(self, own: _Done) -> list[_Done]:
        """Return what each process has, in the order of ranks."""
        if self._group is None:
            return [own]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, own, group=self._group)
        return found

    def agree(self, own: _Done) -> _Done:
        """Return what the first process has: floats may differ from machine to machine."""
        return self.gather(own)[0]

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and tells of progress."""
        return self._own == 0
