"""Work shared among the processes of torch.distributed, or done by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import distributed

from quantfx.passes.errors import CalibrationError

_Work = TypeVar("_Work")
_Done = TypeVar("_Done")


class Ranks:
    """The processes that work together; all make the same calls in the same order.

    Attributes:
        count: Number of processes.

    Args:
        group: A process group of torch.distributed; None for this process alone.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self.count = 1 if group is None else distributed.get_world_size(group)
        self._own = 0 if group is None else distributed.get_rank(group)

    def map(self, do: Callable[[_Work], _Done], work: Sequence[_Work]) -> list[_Done]:
        """Return the results of ``do`` for all pieces of work, shared among the processes.

        Raises:
            CalibrationError: another process raises.
        """
        parts = self.all_do(lambda: [do(each) for each in work[self._own :: self.count]])
        return [parts[i % self.count][i // self.count] for i in range(len(work))]

    def all_do(self, do: Callable[[], _Done]) -> list[_Done]:
        """Return the results of ``do`` of all processes, in the order of ranks.

        Raises:
            CalibrationError: as ``together``.
        """
        return self._gather(self.together(do))

    def together(self, do: Callable[[], _Done]) -> _Done:
        """Return the result of ``do`` in this process, unless some process raises.

        Raises:
            CalibrationError: another process raises. An error in this process is raised unchanged.
        """
        try:
            done = do()
        except Exception as error:  # raised again, of whatever kind: the others wait for a word
            self._gather(str(error) or type(error).__name__)
            raise
        for rank, failure in enumerate(self._gather("")):
            if failure:
                message = f"rank {rank} of {self.count} failed: {failure}"
                raise CalibrationError(message, rule="other-rank", site=f"rank {rank}")
        return done

    def agree(self, own: _Done) -> _Done:
        """Return the first process's value: floats may differ between machines."""
        return self._gather(own)[0]

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self._own == 0

    def _gather(self, own: _Done) -> list[_Done]:
        if self._group is None:
            return [own]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, own, group=self._group)
        return found
