"""The root of every error this project raises, and the words they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuantfxError(Exception):
    """Base of every error raised by quantfx."""


class QuantfxWarning(UserWarning):
    """Category of every warning of quantfx: what ``strict=False`` lets pass, and unused rules."""


class PatternError(QuantfxError):
    """A template file is wrong; the message names the file, the key and the nearest valid name."""


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known names nearest to ``name``, else ``""``.

    Args:
        name: What was given.
        known: What there is.
        most: How many names to show.
    """
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
