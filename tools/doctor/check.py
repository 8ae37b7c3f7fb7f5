"""A finding of ``quantfx doctor``, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was checked, e.g. ``C++ compiler``.
        status: ``problem`` keeps something from working, or from being right; ``note`` does not.
        found: The finding in words.
        fix: What to do about a problem, and about some notes.
    """

    name: str
    status: Status
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.status == "problem" and not self.fix:
            raise ValueError(f"{self.name}: a problem comes with its fix")
