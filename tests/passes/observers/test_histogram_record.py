"""Ranges of any magnitude are recorded, up to the largest float."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantfx.passes.observers.channel import (
    RANGE_SEARCHES,
    ByChannel,
    ChannelObserver,
    RangeSearch,
)
from quantfx.passes.observers.histogram_record import histogram
from quantfx.passes.observers.make_observer import OBSERVERS, make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.spec import ObserverName, QuantSpec

MAGNITUDES = [2.0**exponent for exponent in (67, 83, 99, 101, 113, 116, 119, 122, 125)]
PER_TENSOR: list[ObserverName] = [
    name for name in OBSERVERS if name in ("min_max", "histogram", "mse", "moving_average")
]


def _batches(magnitude: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(64, 8, generator=generator).clamp(-3, 3) * magnitude for _ in range(4)]


def _scale(observer: Observer, magnitude: float) -> float:
    for batch in _batches(magnitude):
        observer(batch)
    return float(observer.calculate_qparams().scale) / magnitude


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", PER_TENSOR)
def test_large_values_keep_their_range(name: ObserverName, symmetric: bool) -> None:
    spec = QuantSpec(torch.uint8, 0, 255, symmetric, observer=name)
    usual = _scale(_made(spec), 1.0)
    whole = _scale(_made(QuantSpec(torch.uint8, 0, 255, symmetric, observer="min_max")), 1.0)
    for magnitude in MAGNITUDES:
        scale = _scale(_made(spec), magnitude)
        assert scale == pytest.approx(usual, rel=0.02), magnitude
        assert scale == pytest.approx(whole, rel=0.1), magnitude


@pytest.mark.parametrize("search", RANGE_SEARCHES)
def test_large_values_keep_their_range_by_channel(search: RangeSearch) -> None:
    spec = QuantSpec(torch.uint8, 0, 255, observer=ByChannel(search))
    usual = _scale(_made(spec), 1.0)
    for magnitude in MAGNITUDES:
        observer = _made(spec)
        assert _scale(observer, magnitude) == pytest.approx(usual, rel=0.02), magnitude
        assert isinstance(observer, ChannelObserver)
        divided = observer.divide_by(torch.full((8,), 2.0)).calculate_qparams()
        assert float(divided.scale) / magnitude == pytest.approx(usual / 2, rel=0.02), magnitude


def test_counts_do_not_depend_on_the_magnitude() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(1)).clamp(-3, 3)
    expected = torch.histc(x, 2048, -3.0, 3.0)
    for magnitude in MAGNITUDES:
        counts = histogram(x * magnitude, 2048, -3.0 * magnitude, 3.0 * magnitude)
        assert torch.equal(counts, expected)


def _made(spec: QuantSpec) -> Observer:
    observer = make_observer(spec, "x")
    assert isinstance(observer, Observer)
    return observer
