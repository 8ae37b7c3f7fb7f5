"""Scales, held against what observers saw."""

from __future__ import annotations

import pytest
import torch
from torch.fx import GraphModule

from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observers.min_max import RangeRecord
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.weight import WeightObserver
from quantfx.passes.quant.qparams import QParams
from quantfx.tools.fuzz.check_ranges import wrong_ranges
from tests import unchecked
from tests.tools.fuzz.shared import X86, Model


def prepared() -> GraphModule:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    module = X86.prepare(unchecked.capture(Model().eval(), (x,)))
    calibrate(module, [x], progress=False)
    return module


def change(
    monkeypatch: pytest.MonkeyPatch, observer: Observer, *, factor: float, steps: int
) -> None:
    """Let an observer give another scale and zero point."""
    found = observer.calculate_qparams()
    other = QParams(found.scale * factor, found.zero_point + steps, found.spec)
    monkeypatch.setattr(observer, "calculate_qparams", lambda: other)


def test_scales_of_observers_are_not_named() -> None:
    assert wrong_ranges(prepared()) == []


def test_a_zero_point_that_is_off_by_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = prepared()
    observer = next(each for each in module.modules() if isinstance(each, RangeRecord))
    change(monkeypatch, observer, factor=1.0, steps=1)
    [line] = wrong_ranges(module)
    assert line.endswith("steps are for nothing")


def test_a_weight_scale_that_is_worse_than_the_usual_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = prepared()
    observer = next(each for each in module.modules() if isinstance(each, WeightObserver))
    change(monkeypatch, observer, factor=1.5, steps=0)
    [line] = wrong_ranges(module)
    assert "the usual scale is better for " in line
