"""Annotate layer norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateLayerNorm(Annotate):
    """Match the templates of group ``layer-norm``."""

    name: ClassVar[str] = "annotate-layer-norm"
    group: ClassVar[str] = "layer-norm"
