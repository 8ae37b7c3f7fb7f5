"""Annotate batch norms that no layer in front of them takes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateBatchNorm(Annotate):
    """Match the templates of group ``batch-norm``."""

    name: ClassVar[str] = "annotate-batch-norm"
    group: ClassVar[str] = "batch-norm"
