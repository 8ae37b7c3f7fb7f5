"""Choices that were measured: kept in a file, by machine, and only if they pay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantfx import backends
from quantfx.backends.direct import tune as tuning
from quantfx.backends.direct.steps import Accumulate
from quantfx.backends.direct.tuned import (
    Choice,
    choices_for,
    machine_key,
    remember,
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


def tuned(monkeypatch: pytest.MonkeyPatch, fast: Choice, ratio: float) -> tuning.TuningReport:
    """Tune with made-up times: a choice is twice as fast as the others."""

    def measure(self: tuning._Tuning, plans: dict[Choice, object]) -> dict[Choice, list[float]]:
        count = len(self._default.program.steps)
        return {choice: [1.0 if choice == fast else 2.0] * count for choice in plans}

    monkeypatch.setattr(tuning._Tuning, "_measure", measure)
    monkeypatch.setattr(tuning._Tuning, "_compare", lambda self, plan: ratio)
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
