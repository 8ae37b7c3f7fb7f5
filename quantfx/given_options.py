"""Keyword options of a function as one value, with names checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from quantfx.passes.errors import ArgumentError
from quantfx.patterns.errors import unknown_name

_Options = TypeVar("_Options")


def given_options(kind: type[_Options], given: Mapping[str, Any], of: str) -> _Options:
    """Return the given options, with defaults for the others.

    Args:
        kind: A dataclass of options with defaults.
        given: Options by name.
        of: Whose options they are, for errors.

    Raises:
        ArgumentError: there is no option of a given name; names the nearest.
    """
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    for name in given:
        if name not in known:
            raise unknown_name(ArgumentError, "option", name, known, of=of)
    return kind(**given)
