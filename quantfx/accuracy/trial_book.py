"""Trials in a file, from which a search can resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantfx.accuracy.score import Score
from quantfx.accuracy.split import Part
from quantfx.passes.errors import FileError
from quantfx.passes.observers.statistics.whole_file import opened, writing

FORMAT = 1
_KIND = "quantfx trials"
_FACTS = {
    "model": "another model",
    "data": "other data",
    "metric": "another metric",
    "split": "items that were split otherwise (another seed)",
    "backend": "another backend",
}


class TrialBook:
    """Scores by the text of a recipe and the part of the data; on disk if asked for.

    The file is JSON: ``trials`` has ``[recipe, part, value, error, seconds]``.

    Args:
        path: The file, which may exist; None keeps nothing on disk.
        facts: What trials depend on: digests of model and data, the metric, the split.

    Raises:
        FileError: the file belongs to another search, is damaged or cannot be read.
    """

    def __init__(self, path: Path | None, facts: Mapping[str, str]) -> None:
        self._path, self._facts = path, dict(facts)
        self._scores: dict[tuple[str, Part], Score] = {}
        if path is not None and path.exists():
            self._read(path)

    def known(self, recipe: str, part: Part) -> Score | None:
        """Return the known score; None if there is none."""
        return self._scores.get((recipe, part))

    def add(self, recipe: str, part: Part, score: Score) -> None:
        """Keep a score; failed recipes are tried again next time."""
        if not score.failure:
            self._scores[recipe, part] = score

    def write(self) -> None:
        """Write the file atomically.

        Raises:
            FileError: it cannot be written.
        """
        if self._path is None:
            return
        rows = [
            [recipe, part, score.value, score.error, round(score.seconds, 3)]
            for (recipe, part), score in self._scores.items()
        ]
        data = {"kind": _KIND, "format": FORMAT, **self._facts, "trials": rows}
        with writing(self._path) as file:
            file.write(json.dumps(data, indent=1).encode())

    def _read(self, path: Path) -> None:
        fix = "name another file, or remove it"
        try:
            with opened(path, "quantize_to") as file:
                data: Any = json.load(file)
        except (ValueError, RecursionError) as error:
            message = f"{path}: the file is not JSON: {error}"
            raise FileError(message, rule="damaged-file", site=str(path), fix=fix) from error
        if not isinstance(data, dict) or data.get("kind") != _KIND:
            message = f"{path}: holds no trials of quantize_to"
            raise FileError(message, rule="foreign-file", site=str(path), fix=fix)
        if data.get("format") != FORMAT:
            message = f"{path}: has format {data.get('format')}, and this version reads {FORMAT}"
            raise FileError(message, rule="file-version", site=str(path), fix=fix)
        for name, told in _FACTS.items():
            if data.get(name) != self._facts[name]:
                message = f"{path}: its trials are of {told} ({data.get(name)}, not "
                message += f"{self._facts[name]})"
                raise FileError(message, rule="other-trials", site=str(path), fix=fix)
        try:
            self._scores = {_key(row): _score(row) for row in data["trials"]}
        except (KeyError, TypeError, ValueError, IndexError) as error:
            message = f"{path}: its trials are damaged: {error}"
            raise FileError(message, rule="damaged-file", site=str(path), fix=fix) from error


def _key(row: Any) -> tuple[str, Part]:
    return str(row[0]), "judge" if row[1] == "judge" else "choose"


def _score(row: Any) -> Score:
    return Score(float(row[2]), None if row[3] is None else float(row[3]), float(row[4]))
