from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from quantfx.tools.zoo.networks import Network
from quantfx.tools.zoo.process import Limits, Store, measure_apart
from quantfx.tools.zoo.row import Row, Stage

NETWORK = Network("small", "module", "nowhere:Small", {})
HALF_WAY = Row(
    "small", "module", "abc", stages={"build": Stage("done", 1.0), "compile": Stage("ended", 0.0)}
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "rows")


def in_place_of_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, commands: str) -> None:
    """Let a script stand for the process; it finds the row's file in ``$5``."""
    script = tmp_path / "process"
    script.write_text(f"#!/bin/sh\n{commands}\n", encoding="utf-8")
    script.chmod(0o755)
    (tmp_path / "row.json").write_text(HALF_WAY.to_json(), encoding="utf-8")
    monkeypatch.setattr(sys, "executable", str(script))


def test_a_process_that_ends_well_leaves_its_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store
) -> None:
    done = Row("small", "module", "abc", stages={"build": Stage("done", 1.0)}, planned=3)
    in_place_of_python(monkeypatch, tmp_path, f'cp {tmp_path}/done.json "$5"; echo printed')
    (tmp_path / "done.json").write_text(done.to_json(), encoding="utf-8")
    assert measure_apart(NETWORK, "abc", store, Limits()) == done
    assert store.row("small") == done
    assert store.log("small").read_text() == "printed\n"
    assert not store.running("small").exists()


def test_a_process_that_crashes_keeps_what_it_had_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store
) -> None:
    in_place_of_python(monkeypatch, tmp_path, f'cp {tmp_path}/row.json "$5"; kill -SEGV $$')
    row = measure_apart(NETWORK, "abc", store, Limits())
    assert row.stages["build"].outcome == "done"
    assert row.stages["compile"] == Stage("ended", 0.0, "its process ended with exit code -11")
    assert store.row("small") == row


def test_a_process_that_hangs_is_ended_with_what_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store
) -> None:
    in_place_of_python(monkeypatch, tmp_path, f"(sleep 1; touch {tmp_path}/lived) & sleep 600")
    row = measure_apart(NETWORK, "abc", store, Limits(seconds=0.3))
    assert row.stages == {"build": Stage("ended", 0.0, "it took more than 0.3 s")}
    time.sleep(1.2)
    assert not (tmp_path / "lived").exists()


def test_a_row_that_was_cut_short_is_measured_again(store: Store) -> None:
    store.folder.mkdir()
    assert store.row("small") is None
    store.file("small").write_text('{"network": "small", ', encoding="utf-8")
    assert store.row("small") is None
    store.file("small").write_text('{"of": "another version"}', encoding="utf-8")
    assert store.row("small") is None
    store.keep(HALF_WAY)
    assert store.row("small") == HALF_WAY
