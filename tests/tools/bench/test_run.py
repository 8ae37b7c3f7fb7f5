from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from quantfx.cli import main
from quantfx.tools.bench.breakdown import Breakdown
from quantfx.tools.bench.engine import Engine
from quantfx.tools.bench.results import Measured
from quantfx.tools.bench.run import Request, run
from quantfx.tools.bench.session import Session, Worker
from quantfx.tools.bench.workload import load_workload, named_workloads
from tests.refusals import refused

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

def net():
    return Net().eval(), (torch.randn(4, 3, 8, 8),), [torch.randn(4, 3, 8, 8)]
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_bench.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def in_process(engine: Engine, model: str, batch: int, threads: int) -> Worker:
    """Eager, whatever the engine."""
    eager = Engine(engine.name, engine.title, lambda workload, threads: workload.model)
    return Session(eager, load_workload(model, batch), threads)


def test_tables_and_files_are_written(tmp_path: Path) -> None:
    stream = StringIO()
    request = Request(
        models=["own_bench:net"],
        engines=["quantfx"],
        rounds=2,
        calls=1,
        json=tmp_path / "new" / "bench.json",
        chart=tmp_path / "bench.svg",
    )
    report = run(request, Console(file=stream, width=80), in_process)
    assert [row.engine for row in report.comparisons[0].rows] == ["fp32", "quantfx"]
    assert "own_bench:net" in stream.getvalue()
    assert json.loads((tmp_path / "new" / "bench.json").read_text())["settings"]["rounds"] == 2
    ElementTree.fromstring((tmp_path / "bench.svg").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet5"], "no model 'resnet5' (did you mean 'resnet50'?)"),
        ([], "no model: name one"),
        (["--model", "own_bench:nett"], "'own_bench' has no function 'nett' (did you mean 'net'?)"),
        (["bert", "--engines", "fp32,quantfy"], "no engine 'quantfy' (did you mean 'quantfx'?)"),
        (["bert", "--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["bert", "--calls", "0"], "--calls must be at least 1"),
        (["bert", "--batch", "0"], "--batch must be at least 1"),
        (["bert", "--threads", "0"], "--threads must be at least 1"),
    ],
)
def test_wrong_arguments_end_with_a_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_help_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in named_workloads())


def test_a_model_is_checked_before_anything_is_measured() -> None:
    def start(engine: Engine, model: str, batch: int, threads: int) -> Worker:
        raise AssertionError("measured")

    with refused("unknown-name", site="unknown"):
        run(Request(models=["own_bench:net", "unknown"]), Console(file=StringIO()), start)


@pytest.mark.sweep
def test_two_engines_in_processes_of_their_own() -> None:
    stream = StringIO()
    request = Request(["own_bench:net"], ["quantfx"], rounds=2, calls=2, threads=1, breakdown=True)
    (comparison,) = run(request, Console(file=stream, width=80)).comparisons
    for row in comparison.rows:
        assert isinstance(row, Measured), row
        assert len(row.seconds) == 2
        assert row.accuracy.sqnr_db > 20
    before = comparison.breakdowns["quantfx-onednn"]
    assert isinstance(before, Breakdown), before
    assert len(before.sites) == 2
    assert all(site.kernel_ms > 0 for site in before.sites)
    after = comparison.breakdowns["quantfx"]
    assert isinstance(after, Breakdown), after
    assert sum(site.kernel_ms > 0 for site in after.sites) == 2  # with plans and without
