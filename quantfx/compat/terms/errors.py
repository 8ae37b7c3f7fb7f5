"""Errors of the PT2E names; each is also of the built-in kind that their users expect."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from quantfx.passes.errors import SpecError
from quantfx.patterns.errors import QuantfxError


class QuantizationSpecError(SpecError, ValueError):
    """A quantization spec contradicts itself."""


class AnnotationError(QuantfxError, AssertionError):
    """A quantizer annotated a node with something that cannot be observed."""


class ComposeError(QuantfxError, RuntimeError):
    """A quantizer changed what an earlier one of the same composition had decided."""


class ArgumentError(QuantfxError, ValueError):
    """An argument is of the wrong kind, or asks for what this library does not do."""


class ObserverError(QuantfxError, TypeError):
    """A module that stands where an observer should does not say how to quantize."""


class ForeignError(QuantfxError):
    """Code that is not ours failed while one of our pipelines ran it; carries its exception."""


@contextmanager
def foreign_code() -> Generator[None]:
    """Carry what the user's code raises through a pipeline, which reports failures as its own."""
    try:
        yield
    except Exception as error:
        raise ForeignError(f"{type(error).__name__}: {error}") from error


@contextmanager
def as_raised() -> Generator[None]:
    """Raise what the user's code raised, as if no pipeline had been in between."""
    try:
        yield
    except ForeignError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
