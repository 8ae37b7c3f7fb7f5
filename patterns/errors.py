"""The root of every error this project raises, and the words they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuantfxError(Exception):
    """Base of every error raised by quantfx."""


class PatternError(QuantfxError):
    """A template file is wrong; the message names the file, the key and the nearest valid name."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name nearest to ``name``, else ``""``."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
