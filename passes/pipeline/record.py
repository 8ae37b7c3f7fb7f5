"""What a pipeline records with a module: its facts and what each pass did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch.fx import GraphModule

from quantfx.passes.graph.remark import AnyRemark
from quantfx.passes.pipeline.vanished import Vanished

_Kind = TypeVar("_Kind", bound=AnyRemark)
_RECORDS = "quantfx_records"


@dataclass(frozen=True)
class PassRecord:
    """Record of one run of a pass.

    Attributes:
        name: Name of the pass.
        seconds: Wall time of the pass itself.
        changed: Whether it changed the module.
        remarks: Its remarks about single nodes.
        stats: Its counts.
        vanished: Nodes that it removed.
    """

    name: str
    seconds: float
    changed: bool
    remarks: tuple[AnyRemark, ...]
    stats: Mapping[str, int]
    vanished: tuple[Vanished, ...] = ()


def records_of(module: GraphModule) -> tuple[PassRecord, ...]:
    """Return the records of every pass that ran on ``module``, in order."""
    return tuple(module.meta.get(_RECORDS, ()))


def remarks_of(module: GraphModule, kind: type[_Kind], by: str | None = None) -> Iterator[_Kind]:
    """Yield the remarks of one class that passes made on ``module``, in order.

    Args:
        module: The module that the passes ran on.
        kind: Class of the remarks.
        by: Name of the pass; by default of every pass.
    """
    for record in records_of(module):
        if by in (None, record.name):
            yield from (remark for remark in record.remarks if isinstance(remark, kind))


def set_records(module: GraphModule, records: tuple[PassRecord, ...]) -> None:
    """Set the records of the passes that ran on ``module``."""
    module.meta[_RECORDS] = records
