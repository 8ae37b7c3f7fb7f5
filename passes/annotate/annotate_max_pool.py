"""Annotate max pooling, to be kept where its input turns out to be quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateMaxPool(Annotate):
    """Match the templates of group ``max-pool``."""

    name: ClassVar[str] = "annotate-max-pool"
    group: ClassVar[str] = "max-pool"
