"""Annotate activation functions and norms that kernels of their own compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateDefault(Annotate):
    """Match the templates of group ``default``."""

    name: ClassVar[str] = "annotate-default"
    group: ClassVar[str] = "default"
