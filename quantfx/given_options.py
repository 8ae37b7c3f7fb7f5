"""Keyword options of a function as one value, checked by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from quantfx.passes.errors import ArgumentError
from quantfx.patterns.errors import unknown_name

_Options = TypeVar("_Options")


def given_options(kind: type[_Options], given: Mapping[str, Any], of: str) -> _Options:
    """Return the options that were given, with the defaults of the others.

    Args:
        kind: A dataclass of options with defaults.
        given: By name.
        of: Whose options they are, for an error.

    Raises:
        ArgumentError: there is no option of that name; names the nearest.
    """
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    for name in given:
        if name not in known:
            raise unknown_name(ArgumentError, "option", name, known, of=of)
    return kind(**given)
