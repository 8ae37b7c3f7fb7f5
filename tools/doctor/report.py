"""All findings of ``quantfx doctor``, as data."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, asdict, dataclass

from quantfx.tools.doctor.check import Check, Status
from quantfx.tools.doctor.templates import TemplateRow
from quantfx.tools.measure.machine import Machine

FORMAT = 1


@dataclass(frozen=True)
class DoctorReport:
    """The whole finding.

    Attributes:
        machine: The examined machine.
        checks: Checks in the order of printing.
        backend: The backend of the templates.
        unverified: The part of the backend that cannot be tested here, e.g. ``no XPU``.
        templates: One row per template, in the backend's order.
    """

    machine: Machine
    _: KW_ONLY
    checks: tuple[Check, ...]
    backend: str
    unverified: str
    templates: tuple[TemplateRow, ...]

    @property
    def problems(self) -> int:
        """The number of checks and templates with a problem."""
        found = [check.status for check in self.checks] + [row.status for row in self.templates]
        return found.count("problem")

    @property
    def status(self) -> Status:
        """``problem`` if there is any, else ``ok``."""
        return "problem" if self.problems else "ok"

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps({"format": FORMAT, "status": self.status, **asdict(self)}, indent=2)
