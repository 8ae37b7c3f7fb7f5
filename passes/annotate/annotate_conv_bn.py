"""Annotate convolutions and linears in training together with their batch norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateConvBn(Annotate):
    """Match the templates of group ``conv-bn``, which only training has."""

    name: ClassVar[str] = "annotate-conv-bn"
    group: ClassVar[str] = "conv-bn"
