"""Code of the user's that runs inside of a pipeline, and raises what it likes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from quantfx.patterns.errors import QuantfxError


class ForeignError(QuantfxError):
    """Code that is not ours failed while one of our pipelines ran it; carries its exception."""


@contextmanager
def foreign_code() -> Generator[None]:
    """Carry what the user's code raises through a pipeline, which reports failures as its own."""
    try:
        yield
    except Exception as error:
        raise ForeignError(f"{type(error).__name__}: {error}", rule="foreign-code") from error


@contextmanager
def as_raised() -> Generator[None]:
    """Raise what the user's code raised, as if no pipeline had been in between."""
    try:
        yield
    except ForeignError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
