"""Annotate recurrent layers and cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.annotate.annotate import Annotate


@dataclass(frozen=True)
class AnnotateRnn(Annotate):
    """Match the templates of group ``rnn``."""

    name: ClassVar[str] = "annotate-rnn"
    group: ClassVar[str] = "rnn"
