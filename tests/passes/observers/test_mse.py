from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quantfx.passes.errors import CalibrationError
from quantfx.passes.observers.make_observer import OBSERVERS, make_observer
from quantfx.passes.observers.mse import MinSquaredErrorObserver, squared_errors
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams, qparams_from_range
from quantfx.passes.quant.spec import ObserverName, QuantSpec
from tests.passes.observers.distributions import KINDS, batches
from tests.refusals import refused

U8 = QuantSpec(torch.uint8, 0, 255, observer="mse")
SPECS = [
    U8,
    QuantSpec(torch.uint8, 0, 127, observer="mse"),
    QuantSpec(torch.int8, -128, 127, symmetric=True, observer="mse"),
]


def mean_squared_error(x: Tensor, qparams: QParams) -> float:
    """Quantize every value for real, in float64."""
    scale, spec = qparams.scale.double(), qparams.spec
    q = (x.double() / scale).round() + qparams.zero_point
    y = (q.clamp(spec.quant_min, spec.quant_max) - qparams.zero_point) * scale
    return float((y - x).square().mean())


def observed(spec: QuantSpec, name: ObserverName, xs: list[Tensor]) -> QParams:
    observer = make_observer(
        QuantSpec(spec.dtype, spec.quant_min, spec.quant_max, spec.symmetric, observer=name), "x"
    )
    assert isinstance(observer, Observer)
    for x in xs:
        observer(x)
    return observer.calculate_qparams()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_error_is_not_above_the_other_observers(kind: str, seed: int) -> None:
    """Up to 3 % for the grid of candidates, and chance where few values stand for a whole bin."""
    spec, xs = SPECS[seed], batches(kind, seed)
    x = torch.cat(xs)
    error = mean_squared_error(x, observed(spec, "mse", xs))
    chance = 1.03 + 3 / x.numel() ** 0.5
    resolution = (float(x.max() - x.min()) / 2048) ** 2 / 12
    for other in ("min_max", "histogram"):
        error_of_other = mean_squared_error(x, observed(spec, other, xs))
        assert error <= error_of_other * chance + resolution


@pytest.mark.parametrize("spec", SPECS)
def test_estimate_is_the_error_of_evenly_spread_values(spec: QuantSpec) -> None:
    """One bin filled evenly, quantized by ranges inside, around and beside it."""
    x = torch.linspace(-1.0, 3.0, 200_001, dtype=torch.float64)
    edges = torch.tensor([-1.0, 3.0], dtype=torch.float64)
    density = torch.tensor([-0.25, 0.25], dtype=torch.float64)
    ends = [(-1.0, 3.0), (-0.5, 1.0), (0.0, 2.0), (-2.0, 0.0), (-4.0, 9.0)]
    ranges = torch.tensor(ends, dtype=torch.float64)
    estimates = squared_errors(edges, density, ranges, spec)
    for (low, high), estimate in zip(ranges, estimates, strict=True):
        error = mean_squared_error(x, qparams_from_range(low, high, spec))
        assert float(estimate) == pytest.approx(error, rel=1e-3)


def test_finds_the_best_of_a_dense_grid() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(50_000) * 0.3 + 1, torch.randn(500) * 4])
    found = mean_squared_error(x, observed(U8, "mse", [x]))
    lows, highs = torch.linspace(float(x.min()), 0, 30), torch.linspace(0.5, float(x.max()), 60)
    best = min(
        mean_squared_error(x, qparams_from_range(low, high, U8)) for low in lows for high in highs
    )
    assert found <= best * 1.02


def test_clips_an_outlier_and_nothing_of_a_uniform() -> None:
    torch.manual_seed(0)
    outlier = torch.cat([torch.randn(1_000_000), torch.tensor([60.0])])
    assert float(observed(U8, "mse", [outlier]).scale) < 0.5 * 65 / 255
    uniform = torch.rand(100_000)
    assert float(observed(U8, "mse", [uniform]).scale) == pytest.approx(1 / 255, rel=0.01)


def test_constant_is_exact() -> None:
    for value in (2.5, -2.5):
        assert mean_squared_error(
            torch.tensor(value), observed(U8, "mse", [torch.full((5,), value)])
        ) == pytest.approx(0, abs=1e-12)


def test_state_dict_deepcopy_and_pickle_keep_the_record() -> None:
    torch.manual_seed(0)
    observer = MinSquaredErrorObserver(U8, "x")
    observer(torch.randn(100))
    loaded = MinSquaredErrorObserver(U8, "x")
    loaded.load_state_dict(observer.state_dict())
    for twin in (loaded, copy.deepcopy(observer), pickle.loads(pickle.dumps(observer))):
        assert twin.calculate_qparams().scale == observer.calculate_qparams().scale


def test_needs_finite_data() -> None:
    observer = MinSquaredErrorObserver(U8, "x")
    with refused("never-run", CalibrationError, site="x"):
        observer.calculate_qparams()
    with refused("not-finite", CalibrationError, site="x"):
        observer(torch.tensor([torch.nan]))


def test_every_observer_name_makes_its_observer() -> None:
    for name, cls in OBSERVERS.items():
        spec = QuantSpec(torch.uint8, 0, 255, observer="min_max")
        if name == "weight_mse":
            spec = replace(
                spec, dtype=torch.int8, quant_min=-128, quant_max=127, symmetric=True, axis=0
            )
        observer = make_observer(replace(spec, observer=name), "conv1")
        assert type(observer) is cls
        assert observer.label == "conv1"
