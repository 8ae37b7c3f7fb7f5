"""Annotate matrix products of two activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateMatmul(Annotate):
    """Match the templates of group ``matmul``."""

    name: ClassVar[str] = "annotate-matmul"
    group: ClassVar[str] = "matmul"
