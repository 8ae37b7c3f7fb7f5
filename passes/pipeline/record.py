"""What a pipeline keeps with a module: the facts that hold of it and what each pass did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import GraphModule

from quantfx.passes.graph.remark import Remark

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


def records_of(module: GraphModule) -> tuple[PassRecord, ...]:
    """Return what every pass that ever ran on ``module`` did, in order."""
    return tuple(module.meta.get(_RECORDS, ()))


def set_records(module: GraphModule, records: tuple[PassRecord, ...]) -> None:
    """Record what the passes did."""
    module.meta[_RECORDS] = records
