"""Annotate linear layers with their bias, add and activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateLinear(Annotate):
    """Match the templates of group ``linear``."""

    name: ClassVar[str] = "annotate-linear"
    group: ClassVar[str] = "linear"
