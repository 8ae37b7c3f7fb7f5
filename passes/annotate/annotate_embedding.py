"""Annotate embeddings and bags of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateEmbedding(Annotate):
    """Match the templates of group ``embedding``."""

    name: ClassVar[str] = "annotate-embedding"
    group: ClassVar[str] = "embedding"
