"""The account of a model's Dynamo graphs: what each has become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quantfx.passes.report.report import Report

Phase = Literal["observing", "int8", "float"]


@dataclass
class GraphRecord:
    """The account of one graph that Dynamo made.

    Attributes:
        where: Its function, with file and line.
        phase: ``observing`` in float, ``int8``, or ``float`` for good.
        observed: Calls observed in its frame, in all its graphs.
        reason: Why it is float; empty if it is not.
        report: Operator by operator, once there is something to report.
        vain: Config rules that select or change nothing in it, and the reasons.
    """

    where: str
    phase: Phase = "observing"
    observed: int = 0
    reason: str = ""
    report: Report | None = None
    vain: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        report = None if self.report is None else self.report.to_dict()
        return {
            "where": self.where,
            "phase": self.phase,
            "observed": self.observed,
            "reason": self.reason,
            "report": report,
        }

    def __str__(self) -> str:
        head = f"{self.where}: {self.phase}"
        if self.phase == "observing":
            head += f", {self.observed} call(s) so far"
        if self.reason:
            head += f", {self.reason}"
        return head if self.report is None else f"{head}\n{self.report}"


@dataclass(frozen=True)
class CompileReport:
    """The account of every graph of a model, in the order in which Dynamo made them."""

    graphs: tuple[GraphRecord, ...]

    @property
    def planned(self) -> int:
        """Number of planned matches in all int8 graphs."""
        return sum(each.report.planned for each in self.graphs if each.report is not None)

    @property
    def compiled(self) -> int:
        """Number of matches that reached their kernels in compiled code, in all graphs."""
        return sum(each.report.compiled or 0 for each in self.graphs if each.report is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"graphs": [each.to_dict() for each in self.graphs]}

    def __str__(self) -> str:
        if not self.graphs:
            return "no graph yet: call the model"
        count = len(self.graphs)
        return "\n\n".join(
            f"graph {index} of {count}: {each}" for index, each in enumerate(self.graphs, start=1)
        )
