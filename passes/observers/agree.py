"""Agreement of processes that train one model together on what they observe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

WORLD = "world"


@dataclass(frozen=True)
class Group:
    """The processes that agree; a copy refers to the same processes.

    Attributes:
        members: A process group, ``"world"`` for all processes if torch.distributed is initialized,
            or None for this process alone.
    """

    members: Any = WORLD

    def __deepcopy__(self, memo: dict[int, Any]) -> Group:
        return self


def agree_on_range(low: Tensor, high: Tensor, group: Any) -> tuple[Tensor, Tensor]:
    """Return the joint range of all processes' batches.

    Every process of the group must call it in its forward pass.

    Args:
        low: Smallest value of this process's batch.
        high: Largest value, same shape.
        group: A process group, ``"world"``, or None for this process alone.
    """
    if not _is_shared(group):
        return low, high
    both = torch.stack([-low, high])
    distributed.all_reduce(both, distributed.ReduceOp.MAX, group=_group(group))
    return -both[0], both[1]


def copy_from_first(value: Tensor, group: Any) -> None:
    """Copy ``value`` from the group's first process to all others, in place."""
    if _is_shared(group):
        source = distributed.get_process_group_ranks(_group(group))[0]
        distributed.broadcast(value, source, group=_group(group))


def _is_shared(group: Any) -> bool:
    if group is None or not (distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size(_group(group)) > 1


def _group(group: Any) -> Any:
    return None if group == WORLD else group
