"""The root of every error and warning that this project raises, and the words they share."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import Any, TypeVar

_Error = TypeVar("_Error", bound="QuantfxError")
_SHOWN = 16  # above this many names, only the nearest is shown


class _Refusal(Exception):
    """Base of errors and warnings: holds the fields and makes the text from them.

    Args:
        message: What is wrong, subject first.
        rule: Short name of the broken rule; ``quantfx.errors`` lists all rules.
        site: The node, module path, input, argument or file concerned.
        fix: What to write instead, in one sentence that begins with a verb.
    """

    def __init__(self, message: str, *, rule: str, site: str | None = None, fix: str = "") -> None:
        # Dynamo cannot trace super().__init__(): it would compile a refused call up to this point.
        # BaseException.__new__ keeps the message.
        self.message = message
        self.rule = rule
        self.site = site
        self.fix = fix

    def __str__(self) -> str:
        return _text(self.message, self.fix)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class QuantfxWarning(_Refusal, UserWarning):
    """Category of every warning of quantfx: what ``strict=False`` lets pass, and unused rules."""


class QuantfxError(_Refusal):
    """Base of every error raised by quantfx."""

    def within(self, place: str, kind: type[_Error], *, told: str = "") -> _Error:
        """Return the same error as a ``kind`` whose text and site begin with ``place``.

        Args:
            place: What holds the site.
            kind: Class of the new error.
            told: What to say between the place and the message.
        """
        site = place if self.site is None else f"{place}: {self.site}"
        return kind(f"{place}: {told}{self.message}", rule=self.rule, site=site, fix=self.fix)

    def warning(self) -> QuantfxWarning:
        """Return the warning that says the same, for what ``strict=False`` lets pass."""
        return QuantfxWarning(self.message, rule=self.rule, site=self.site, fix=self.fix)


def warn(
    message: str, *, rule: str, stacklevel: int, site: str | None = None, fix: str = ""
) -> None:
    """Issue a ``QuantfxWarning``; ``stacklevel`` is that of ``warnings.warn`` at the caller."""
    warning = QuantfxWarning(message, rule=rule, site=site, fix=fix)
    warnings.warn(warning, stacklevel=stacklevel + 1)


class PatternError(QuantfxError):
    """A template file is wrong; the message names the file, the key and the nearest valid name."""


def unknown_name(
    kind: type[_Error], what: str, name: object, known: Iterable[object], *, of: str = ""
) -> _Error:
    """Return the error that ``of`` (or quantfx, if ``of`` is empty) has no ``what`` of that name.

    Args:
        kind: Class of the error.
        what: The kind of thing that was named.
        name: The name that was given.
        known: The valid names.
        of: Owner of the valid names.
    """
    names = [str(each) for each in known]
    return kind(
        f"{of}{' has ' * bool(of)}no {what} '{name}'{did_you_mean(str(name), names)}",
        rule="unknown-name",
        site=str(name),
        fix=f"choose one of {', '.join(map(repr, names))}" if len(names) <= _SHOWN else "",
    )


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known names nearest to ``name``, else ``""``.

    Args:
        name: The name that was given.
        known: The valid names.
        most: How many names to show.
    """
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def _text(message: str, fix: str) -> str:
    if not fix:
        return message
    if message.endswith((".", "?")):
        return f"{message} {fix[0].upper()}{fix[1:]}"
    return f"{message}\n{fix}" if "\n" in message else f"{message}: {fix}"


def _restore(kind: type[_Refusal], args: tuple[str], fields: dict[str, Any]) -> _Refusal:
    """Rebuild a pickled or copied exception, whatever arguments its class takes."""
    made = kind.__new__(kind, *args)
    made.__dict__.update(fields)
    return made
