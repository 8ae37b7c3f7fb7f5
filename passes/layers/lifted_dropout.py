"""A dropout, or other noise, that was removed from a graph, noted where it must be put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch._ops import OpOverload
from torch.fx import Node

KEY = "quantfx_dropouts"


@dataclass(frozen=True, eq=False)
class LiftedDropout:
    """One call of a dropout; every former reader has a note of the same object.

    Attributes:
        target: Operator, or the name of a module that puts noise on a tensor.
        p: The arguments between tensor and mode: the probability of a zero; none for a module.
        name: Name of the call.
        meta: Meta of the call.
    """

    target: OpOverload[..., Any] | str
    p: tuple[float, ...]
    name: str
    meta: Mapping[str, Any]


def dropouts_of(reader: Node) -> dict[str, tuple[LiftedDropout, ...]]:
    """Return the dropouts that go back in front of ``reader``, by slot, the innermost first."""
    return dict(reader.meta.get(KEY, ()))


def set_dropouts(reader: Node, dropouts: Mapping[str, tuple[LiftedDropout, ...]]) -> None:
    """Note the dropouts that go back in front of ``reader``."""
    if dropouts:
        reader.meta[KEY] = tuple(dropouts.items())
    else:
        reader.meta.pop(KEY, None)
