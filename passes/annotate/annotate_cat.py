"""Annotate concatenations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateCat(Annotate):
    """Match the templates of group ``cat``."""

    name: ClassVar[str] = "annotate-cat"
    group: ClassVar[str] = "cat"
