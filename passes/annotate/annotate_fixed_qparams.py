"""Annotate operators whose results have a range known beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateFixedQparams(Annotate):
    """Match the templates of group ``fixed-qparams``."""

    name: ClassVar[str] = "annotate-fixed-qparams"
    group: ClassVar[str] = "fixed-qparams"
