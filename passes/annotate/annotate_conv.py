"""Annotate convolutions with their bias, residual add and activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateConv(Annotate):
    """Match the templates of group ``conv``."""

    name: ClassVar[str] = "annotate-conv"
    group: ClassVar[str] = "conv"
