"""What a pipeline keeps with a module: the facts that hold of it and what each pass did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import GraphModule

from quantfx.passes.base import Remark

TRAINABLE = "trainable"
"""Holds of a graph that was captured for training, until its training is over."""

_FACTS = "quantfx_facts"
_RECORDS = "quantfx_records"


@dataclass(frozen=True)
class PassRecord:
    """One pass as it ran.

    Attributes:
        name: Name of the pass.
        seconds: Wall time of the pass itself.
        changed: Whether it changed the module.
        remarks: What it had to say about single nodes.
        stats: Its counts.
    """

    name: str
    seconds: float
    changed: bool
    remarks: tuple[Remark, ...]
    stats: Mapping[str, int]


def facts_of(module: GraphModule) -> frozenset[str]:
    """Return the facts that hold of ``module``."""
    return frozenset(module.meta.get(_FACTS, ()))


def set_facts(module: GraphModule, facts: frozenset[str]) -> None:
    """Record the facts that hold of ``module``."""
    module.meta[_FACTS] = tuple(sorted(facts))


def records_of(module: GraphModule) -> tuple[PassRecord, ...]:
    """Return what every pass that ever ran on ``module`` did, in order."""
    return tuple(module.meta.get(_RECORDS, ()))


def set_records(module: GraphModule, records: tuple[PassRecord, ...]) -> None:
    """Record what the passes did."""
    module.meta[_RECORDS] = records
