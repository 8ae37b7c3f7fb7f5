"""Annotate sums and products, of two tensors or of one and a number, and matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateBinary(Annotate):
    """Match the templates of group ``binary``."""

    name: ClassVar[str] = "annotate-binary"
    group: ClassVar[str] = "binary"
