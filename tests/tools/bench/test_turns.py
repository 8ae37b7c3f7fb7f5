from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.accuracy import Accuracy
from quantfx.tools.bench.breakdown import Breakdown
from quantfx.tools.bench.engine import Engine, EngineError, EngineUnavailable
from quantfx.tools.bench.results import Comparison, Measured, Missed, Settings
from quantfx.tools.bench.session import Built
from quantfx.tools.bench.turns import compare
from quantfx.tools.measure.side_by_side import Ratio
from tests.tools.bench.sample import BREAKDOWN

SETTINGS = Settings(rounds=3, calls=2, warmup=7, threads=1, batch=1)
ACCURACY = Accuracy(30.0, None)


@dataclass
class FakeWorker:
    """Takes ``seconds`` a call, and raises what it is told to when it is told to."""

    name: str
    seconds: float
    history: list[tuple[str, str]]
    raises: Mapping[str, QuantfxError] = field(default_factory=dict[str, QuantfxError])
    turns: int = 0

    def note(self, what: str) -> None:
        self.history.append((self.name, what))
        if what in self.raises:
            raise self.raises[what]

    def build(self) -> Built:
        self.note("build")
        return Built(2.0, ACCURACY)

    def turn(self, calls: int) -> float:
        self.note(f"turn {self.turns}")
        self.turns += 1
        return self.seconds * calls

    def breakdown(self, repeats: int) -> Breakdown:
        self.note("breakdown")
        return BREAKDOWN

    def peak_bytes(self) -> int:
        self.note("peak")
        return 5

    def close(self) -> None:
        self.history.append((self.name, "close"))


def unused(workload: Any, threads: int) -> Any:
    raise AssertionError("the fake workers build nothing")


def race(
    raises: Mapping[str, Mapping[str, QuantfxError]] | None = None, broken_down: Sequence[str] = ()
) -> tuple[Comparison, list[tuple[str, str]]]:
    history: list[tuple[str, str]] = []
    speeds = {"fp32": 4.0, "b": 2.0, "c": 1.0}

    def start(engine: Engine) -> FakeWorker:
        wrong = (raises or {}).get(engine.name, {})
        return FakeWorker(engine.name, speeds[engine.name], history, wrong)

    engines = [Engine(name, f"engine {name}", unused) for name in speeds]
    announced: list[str] = []
    comparison = compare(
        "net", engines, SETTINGS, start, announce=announced.append, broken_down=broken_down
    )
    assert announced[0] == "net: building fp32"
    assert "net: round 3 of 3" in announced
    return comparison, history


def test_all_are_built_before_they_take_turns_and_each_round_starts_with_another() -> None:
    _, history = race()
    assert [name for name, what in history if what == "build"] == ["fp32", "b", "c"]
    assert max(i for i, (_, what) in enumerate(history) if what == "build") == 2
    for turn, order in enumerate((["c", "fp32", "b"], ["fp32", "b", "c"], ["b", "c", "fp32"])):
        assert [name for name, what in history if what == f"turn {turn}"] == order


def test_warm_up_is_not_counted_and_seconds_are_of_one_call() -> None:
    comparison, history = race()
    assert len([what for name, what in history if name == "b" and what.startswith("turn")]) == 4
    assert comparison.rows == tuple(
        Measured(name, f"engine {name}", 2.0, ACCURACY, 5, (seconds,) * 3)
        for name, seconds in (("fp32", 4.0), ("b", 2.0), ("c", 1.0))
    )


def test_an_engine_that_cannot_be_had_is_a_row() -> None:
    comparison, history = race(
        {"b": {"build": EngineUnavailable("no package", rule="foreign-code")}}
    )
    assert comparison.rows[1] == Missed("b", "engine b", "skipped: no package")
    assert isinstance(comparison.rows[2], Measured)
    assert history.count(("b", "close")) >= 1


def test_an_engine_that_fails_in_a_round_is_a_row() -> None:
    comparison, history = race({"b": {"turn 2": EngineError("it died", rule="foreign-code")}})
    assert comparison.rows[1] == Missed("b", "engine b", "failed: it died")
    assert isinstance(comparison.rows[2], Measured)
    assert len(comparison.rows[2].seconds) == SETTINGS.rounds
    assert ("b", "turn 3") not in history


def test_without_the_baseline_there_are_no_ratios() -> None:
    comparison, _ = race({"fp32": {"peak": EngineError("it died", rule="foreign-code")}})
    row = comparison.rows[1]
    assert isinstance(row, Measured)
    assert comparison.speedup(row, "fp32") is None


def test_every_engine_may_fail() -> None:
    broken = {
        name: {"build": EngineError("no", rule="foreign-code")} for name in ("fp32", "b", "c")
    }
    comparison, _ = race(broken)
    assert all(isinstance(row, Missed) for row in comparison.rows)


def test_every_worker_is_closed() -> None:
    _, history = race()
    assert {name for name, what in history if what == "close"} == {"fp32", "b", "c"}


def test_a_breakdown_is_of_the_engine_that_is_asked_for() -> None:
    comparison, history = race(broken_down=["b", "c"])
    assert comparison.breakdowns == {"b": BREAKDOWN, "c": BREAKDOWN}
    assert [name for name, what in history if what == "breakdown"] == ["b", "c"]


def test_there_is_a_reason_where_there_is_no_breakdown() -> None:
    (reason,) = race(broken_down=["z"])[0].breakdowns.values()
    assert reason == "skipped: 'z' is not among the engines"
    failing = {"b": {"build": EngineError("no", rule="foreign-code")}}
    assert race(failing, broken_down=["b"])[0].breakdowns == {"b": "failed: no"}
    failing = {"b": {"breakdown": EngineError("odd", rule="foreign-code")}}
    comparison, _ = race(failing, broken_down=["b"])
    assert comparison.breakdowns == {"b": "failed: odd"}
    assert isinstance(comparison.rows[1], Measured)


def test_a_ratio_is_within_the_round() -> None:
    rows = (
        Measured("fp32", "", 0, ACCURACY, 0, (4.0, 40.0, 8.0)),
        Measured("b", "", 0, ACCURACY, 0, (2.0, 10.0, 8.0)),
    )
    assert Comparison("net", rows).speedup(rows[1], "fp32") == Ratio(2.0, 1.5, 3.0)
    assert (rows[1].median_ms, rows[1].min_ms) == (8e3, 2e3)
