"""Key paths in data files: readers of typed values, and errors that name the place."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from quantfx.patterns.errors import PatternError, QuantfxError, unknown_name


class KeyPath:
    """Key path of a table in a file: reads typed values; its errors name file and keys.

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

    def error(self, message: str, *, rule: str, fix: str = "") -> QuantfxError:
        """Return an error whose text begins with this place and whose site is this place."""
        return self._error(f"{self}: {message}", rule=rule, site=str(self), fix=fix)

    def unknown(
        self, what: str, name: object, known: Iterable[object], *, of: str = ""
    ) -> QuantfxError:
        """Return the error of ``unknown_name`` at this place."""
        error = unknown_name(self._error, what, name, known, of=of)
        return error.within(str(self), self._error)

    def __str__(self) -> str:
        return f"{self._file}: [{self._path}]" if self._path else self._file

    def _wrong(self, key: str, value: object, kind: str) -> QuantfxError:
        text = f"{self}: '{key}' must be {kind}, not {value!r}"
        return self._error(text, rule="wrong-type", site=f"{self}: {key}")

    def known_keys(self, table: Mapping[str, Any], known: Iterable[str]) -> None:
        """Refuse keys of ``table`` that are not ``known``."""
        for key in table:
            if key not in known:
                raise self.unknown("key", key, known)

    def choice(self, value: object, key: str, choices: tuple[str, ...]) -> str:
        """Return ``value``, which must be one of ``choices``."""
        chosen = self.text(value, key)
        if chosen not in choices:
            raise self.unknown(key, chosen, choices)
        return chosen

    def table(self, value: object, key: str) -> dict[str, Any]:
        """Return ``value``, which must be a table."""
        if not isinstance(value, dict):
            raise self._wrong(key, value, "a table")
        return cast(dict[str, Any], value)

    def text(self, value: object, key: str) -> str:
        """Return ``value``, which must be a string."""
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def texts(self, value: object, key: str) -> list[str]:
        """Return ``value``, which must be a list of strings."""
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list of strings")
        return [self.text(item, key) for item in cast(list[object], value)]

    def flag(self, value: object, key: str) -> bool:
        """Return ``value``, which must be true or false."""
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value


def read_text(path: Path, kind: type[QuantfxError]) -> str:
    """Return the content of a text file; an error of ``kind`` says why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        site, message = str(path), f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        site, message = path.name, f"not UTF-8 text: {error.reason}"
    raise kind(f"{site}: {message}", rule="unreadable-file", site=site)


def parse_toml(text: str, file: str, kind: type[QuantfxError]) -> dict[str, Any]:
    """Return what TOML ``text`` holds; an error of ``kind`` calls it ``file``."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{file}: not valid TOML: {error}"
        raise kind(message, rule="unreadable-file", site=file) from error
