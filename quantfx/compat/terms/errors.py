"""Errors of the user's code that runs inside a pipeline."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from quantfx.patterns.errors import QuantfxError


class ForeignError(QuantfxError):
    """The user's code failed inside a pipeline; carries its exception."""


@contextmanager
def foreign_code() -> Generator[None]:
    """Carry exceptions of the user's code through a pipeline, which reports failures as its own."""
    try:
        yield
    except Exception as error:
        raise ForeignError(f"{type(error).__name__}: {error}", rule="foreign-code") from error


@contextmanager
def as_raised() -> Generator[None]:
    """Raise the exception of the user's code as if no pipeline had been in between."""
    try:
        yield
    except ForeignError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
