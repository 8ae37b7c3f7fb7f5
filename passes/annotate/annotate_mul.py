"""Annotate products of two tensors of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateMul(Annotate):
    """Match the templates of group ``mul``."""

    name: ClassVar[str] = "annotate-mul"
    group: ClassVar[str] = "mul"
