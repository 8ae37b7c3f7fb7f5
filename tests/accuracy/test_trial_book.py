"""Trials in a file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from quantfx.accuracy.score import Score
from quantfx.accuracy.trial_book import TrialBook
from quantfx.passes.errors import FileError
from tests.refusals import refused

FACTS = {"model": "m", "data": "d", "metric": "f", "split": "0", "backend": "x86"}


def written(path: Path) -> TrialBook:
    book = TrialBook(path, FACTS)
    book.add("plain", "choose", Score(0.1 + 0.2, 1e-17, 2.0))
    book.add("plain", "judge", Score(math.inf, None))
    book.add("repair=True", "choose", Score(math.nan, failure="it raises"))
    book.write()
    return book


def test_what_was_measured_is_read_to_the_bit_and_failures_are_tried_again(tmp_path: Path) -> None:
    written(tmp_path / "trials.json")
    book = TrialBook(tmp_path / "trials.json", FACTS)
    assert book.known("plain", "choose") == Score(0.1 + 0.2, 1e-17, 2.0)
    assert book.known("plain", "judge") == Score(math.inf, None)
    assert book.known("repair=True", "choose") is None
    assert [each.name for each in tmp_path.iterdir()] == ["trials.json"]


@pytest.mark.parametrize("fact", FACTS)
def test_trials_of_something_else_are_refused(fact: str, tmp_path: Path) -> None:
    written(tmp_path / "trials.json")
    with refused("other-trials", FileError, site="trials.json", fix="another file"):
        TrialBook(tmp_path / "trials.json", FACTS | {fact: "other"})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "damaged-file"),
        ("[" * 100_000, "damaged-file"),
        ("[]", "foreign-file"),
        (json.dumps({"kind": "quantfx trials", "format": 99}), "file-version"),
        (
            json.dumps({"kind": "quantfx trials", "format": 1, **FACTS, "trials": [["a"]]}),
            "damaged-file",
        ),
    ],
)
def test_other_files_are_refused(text: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    path.write_text(text)
    with refused(rule, FileError, site="trials.json"):
        TrialBook(path, FACTS)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    book = TrialBook(tmp_path / "no" / "trials.json", FACTS)
    with refused("no-such-file", FileError, site="trials.json"):
        book.write()
