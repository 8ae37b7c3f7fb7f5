"""Annotate operators whose results have the qparams of what they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateShareQparams(Annotate):
    """Match the templates of group ``share-qparams``."""

    name: ClassVar[str] = "annotate-share-qparams"
    group: ClassVar[str] = "share-qparams"
