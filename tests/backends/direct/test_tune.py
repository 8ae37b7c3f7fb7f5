"""Choices that were measured: kept in a file, by machine, and only if they pay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quantfx import backends
from quantfx.backends.direct import tune as tuning
from quantfx.backends.direct.runtime.steps import Accumulate
from quantfx.backends.direct.tuned import (
    Choice,
    RouteTimes,
    choices_for,
    machine_key,
    remember,
    routes_for,
    signature,
    tuning_file,
)
from tests import unchecked
from tests.backends.direct.test_region import image, residual
from tests.models.small import residual_block


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The runtime is found where it is; only the measurements are elsewhere.
    from quantfx.backends.direct import tuned

    monkeypatch.setattr(tuned, "cache_folder", lambda: tmp_path)
    tuned._known.cache_clear()


def test_what_is_known_is_kept_by_machine_and_step() -> None:
    remember(2, {"a": Choice(1, 0)})
    remember(2, {"b": Choice(0, 1)})
    remember(1, {"a": Choice(2, 0)})
    assert choices_for(2) == {"a": Choice(1, 0), "b": Choice(0, 1)}
    assert choices_for(1) == {"a": Choice(2, 0)}
    assert choices_for(3) == {}
    assert "oneDNN" in machine_key(1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 3}', '{"x": {"y": ["z"]}}'])
def test_a_damaged_file_is_none(text: str) -> None:
    tuning_file().write_text(text)
    assert choices_for(1) == {}
    remember(1, {"a": Choice()})
    assert choices_for(1) == {"a": Choice()}


@pytest.mark.parametrize(
    "odd",
    [3, ["z", 0], [1], {"name": "a"}, {"name": "a", "plan": "x", "operators": 1, "floats": 1}],
)
def test_one_odd_entry_costs_no_other(odd: object) -> None:
    remember(1, {"a": Choice(1, 0)})
    remember(1, {"region": RouteTimes("b", 1.0, None, 2.0)})
    data = json.loads(tuning_file().read_text())
    data[machine_key(1)]["odd"] = odd
    data["another machine"] = odd
    tuning_file().write_text(json.dumps(data))
    remember(1, {"c": Choice(2, 0)})
    assert choices_for(1) == {"a": Choice(1, 0), "c": Choice(2, 0)}
    assert routes_for(1) == {"region": RouteTimes("b", 1.0, None, 2.0)}


def test_every_region_with_a_step_takes_what_was_measured_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up(monkeypatch, Choice(1, 0), 1.5)
    module = Twice()
    report = tuning.tune(module, image(), seconds=0.1)
    assert (report.tried, len(report.regions)) == (3, 1)  # they are of one kind
    for region in (module.first, module.second):
        steps = region.plan((image(),)).program.steps
        assert {step.implementation for step in steps if isinstance(step, Accumulate)} == {1}


def test_plans_made_afterwards_take_what_is_known() -> None:
    region = residual()
    steps = [s for s in region.plan((image(),)).program.steps if isinstance(s, Accumulate)]
    expected = region(image())[0]
    remember(torch.get_num_threads(), {signature(steps[0]): Choice(1, 1)})
    region.forget_plans()
    again = [s for s in region.plan((image(),)).program.steps if isinstance(s, Accumulate)]
    same = [signature(step) == signature(steps[0]) for step in again]
    assert [step.implementation for step in again] == [int(each) for each in same]
    assert torch.allclose(region(image())[0], expected, rtol=1e-4)


class Twice(nn.Module):
    """Two regions that compute the same."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = residual(), residual()

    def forward(self, x: Tensor) -> list[Tensor]:
        return [*self.first(x), *self.second(x)]


def made_up(monkeypatch: pytest.MonkeyPatch, fast: Choice, ratio: float) -> None:
    """Let times be made up: a choice is twice as fast as the others."""

    def measure(self: tuning._Tuning, plans: dict[Choice, object]) -> dict[Choice, list[float]]:
        count = len(self._default.program.steps)
        return {choice: [1.0 if choice == fast else 2.0] * count for choice in plans}

    monkeypatch.setattr(tuning._Tuning, "_measure", measure)
    monkeypatch.setattr(tuning._Tuning, "_compare", lambda self, plan: ratio)


def tuned(monkeypatch: pytest.MonkeyPatch, fast: Choice, ratio: float) -> tuning.TuningReport:
    """Tune with made-up times."""
    made_up(monkeypatch, fast, ratio)
    x = torch.randn(1, 4, 8, 8)
    result = unchecked.quantize(residual_block(), (x,), backend=backends.get("x86"))
    report = result.tune()
    assert (result.module(x) - result.quantized(x)).abs().max() < 0.1
    return report


def test_what_is_faster_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    report = tuned(monkeypatch, Choice(1, 0), 1.5)
    assert len(report.steps) == report.tried == 2
    assert {step.choice for step in report.steps} == {Choice(1, 0)}
    assert set(choices_for(torch.get_num_threads()).values()) == {Choice(1, 0)}
    assert "1.50 times as fast" in str(report)


def test_what_does_not_pay_as_a_whole_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    report = tuned(monkeypatch, Choice(1, 0), 0.9)
    assert (report.steps, report.ratio) == ((), 1.0)
    assert choices_for(torch.get_num_threads()) == {}


def test_nothing_to_gain_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuned(monkeypatch, Choice(), 1.5).steps == ()


def test_tuning_measures_in_the_time_it_is_given() -> None:
    report = tuning.tune(residual(), image(), seconds=0.5)
    assert report.tried == 3
    assert all(step.after < step.before for step in report.steps)
