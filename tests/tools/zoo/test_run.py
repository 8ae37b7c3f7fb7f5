from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantfx.tools.zoo import run as zoo
from quantfx.tools.zoo.faults import Explained
from quantfx.tools.zoo.networks import Network, Values
from quantfx.tools.zoo.row import Row
from tests.tools.zoo.sample import sample_row

NETWORKS = tuple(
    Network(name, "timm", name, {"": Values("normal", (1, 3, 8, 8))}) for name in ("a", "b", "c")
)


class Sweep:
    """Runs the command on three networks that nobody measures."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page = folder / "ZOO.md"
        self.measured: list[str] = []
        self.decibels = {"a": 30.0, "b": 30.0, "c": 30.0}
        self._folder = folder / "rows"
        monkeypatch.setattr(zoo, "load_networks", lambda: NETWORKS)
        monkeypatch.setattr(zoo, "load_explained", Explained)
        monkeypatch.setattr(zoo, "measure_apart", self._measure)
        monkeypatch.setattr(zoo, "version", lambda package: "1.0")

    def _measure(self, network: Network, commit: str, store: Any, limits: Any) -> Row:
        self.measured.append(network.name)
        row = sample_row(network.name)
        row.decibels["module"] = self.decibels[network.name]
        store.folder.mkdir(exist_ok=True)
        store.keep(row)
        return row

    def run(self, *arguments: str) -> int:
        self.measured.clear()
        return zoo.main([*arguments, "--folder", str(self._folder), "--output", str(self.page)])


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    return Sweep(tmp_path, monkeypatch)


def test_a_stopped_sweep_goes_on_where_it_was(sweep: Sweep) -> None:
    assert sweep.run("--only", "b") == 0
    assert sweep.measured == ["b"]
    assert not sweep.page.exists()  # the committed page is of all networks
    assert sweep.run() == 0
    assert sweep.measured == ["a", "c"]
    assert "3 networks: 3 without a fault" in sweep.page.read_text(encoding="utf-8")
    assert sweep.run() == 0
    assert sweep.measured == []


def test_a_page_of_what_is_known_names_the_rest(sweep: Sweep) -> None:
    sweep.run("--only", "b")
    assert sweep.run("--page") == 0
    assert sweep.measured == []
    assert "1 networks: 1 without a fault, 0 explained, 0 failing. Not measured: a, c." in (
        sweep.page.read_text(encoding="utf-8")
    )


def test_named_and_fresh_networks_are_measured_again(sweep: Sweep) -> None:
    sweep.run()
    sweep.run("--only", "c,a")
    assert sweep.measured == ["a", "c"]
    sweep.run("--fresh", "--jobs", "2")
    assert sorted(sweep.measured) == ["a", "b", "c"]


def test_a_fault_makes_it_fail(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.decibels["b"] = 12.0
    assert sweep.run() == 1
    assert "**b**: module: 12.0 dB" in sweep.page.read_text(encoding="utf-8")
    assert "module: 12.0 dB" in capsys.readouterr().out


def test_an_unknown_name_is_refused(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.run("--only", "d") == 2
    assert "the zoo has no network 'd': choose one of 'a', 'b', 'c'" in capsys.readouterr().out
    assert sweep.measured == []
