"""Where in a file of data something stands, for errors, and readers of typed values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from quantfx.patterns.errors import PatternError, QuantfxError, did_you_mean


class KeyPath:
    """A table of a file by its keys: reads values of one type, or names file and keys in an error.

    Args:
        file: Name of the file, as errors show it.
        path: Key path of the table within the file.
        error: Class of the errors.
    """

    def __init__(
        self, file: str, path: str = "", *, error: type[QuantfxError] = PatternError
    ) -> None:
        self._file = file
        self._path = path
        self._error = error

    def at(self, path: str) -> KeyPath:
        """Return the key path of a table within this one."""
        inner = f"{self._path}.{path}" if self._path else path
        return KeyPath(self._file, inner, error=self._error)

    def error(self, message: str) -> QuantfxError:
        """Return an error that begins with file and key path."""
        where = f"{self._file}: [{self._path}]" if self._path else self._file
        return self._error(f"{where}: {message}")

    def known_keys(self, table: Mapping[str, Any], known: Iterable[str]) -> None:
        """Refuse keys of ``table`` that are not ``known``."""
        for key in table:
            if key not in known:
                raise self.error(f"unknown key '{key}'{did_you_mean(key, known)}")

    def choice(self, value: object, key: str, choices: tuple[str, ...]) -> str:
        """Return ``value``, which must be one of ``choices``."""
        chosen = self.text(value, key)
        if chosen not in choices:
            raise self.error(f"{key} = '{chosen}'{did_you_mean(chosen, choices)}; one of {choices}")
        return chosen

    def table(self, value: object, key: str) -> dict[str, Any]:
        """Return ``value``, which must be a table."""
        if not isinstance(value, dict):
            raise self.error(f"'{key}' must be a table, not {value!r}")
        return cast(dict[str, Any], value)

    def text(self, value: object, key: str) -> str:
        """Return ``value``, which must be a string."""
        if not isinstance(value, str):
            raise self.error(f"'{key}' must be a string, not {value!r}")
        return value

    def texts(self, value: object, key: str) -> list[str]:
        """Return ``value``, which must be a list of strings."""
        if not isinstance(value, list):
            raise self.error(f"'{key}' must be a list of strings, not {value!r}")
        return [self.text(item, key) for item in cast(list[object], value)]

    def flag(self, value: object, key: str) -> bool:
        """Return ``value``, which must be true or false."""
        if not isinstance(value, bool):
            raise self.error(f"'{key}' must be true or false, not {value!r}")
        return value
