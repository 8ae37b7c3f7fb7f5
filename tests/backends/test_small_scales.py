"""Models of small and tiny values, on every family of kernels: as near to float as those of size 1."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.patterns.errors import QuantfxWarning
from tests import unchecked
from tests.refusals import warned

SWEPT = pytest.mark.sweep
COMPILES = [False, pytest.param(True, marks=SWEPT)]
SIZES = [1e-3, 1e-30, *(pytest.param(size, marks=SWEPT) for size in (1e-8, 1e-20))]


class Residual(nn.Module):
    """Convolutions whose sums are fused, requantized, and read by a linear; no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.third = nn.Conv2d(8, 8, 1, bias=False)
        self.head = nn.Linear(8, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = (self.second(x) + x).relu()
        x = nn.functional.hardtanh(self.third(x), -1e30, 1e30) + x
        pooled: Tensor = self.head(x.mean((2, 3)))
        return pooled


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 64, bias=False)
        self.second = nn.Linear(64, 64, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        result: Tensor = self.second(x.relu()) + x
        return result


def sqnr(expected: Tensor, given: Tensor) -> float:
    """In dB; in double precision, where squares of small numbers are numbers."""
    noise = (expected.double() - given.double()).square().sum()
    return float(10 * torch.log10(expected.double().square().sum() / noise))


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def images() -> Tensor:
    return torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(1))


def rows() -> Tensor:
    return torch.randn(16, 32, generator=torch.Generator().manual_seed(1))


def quantized(model: nn.Module, x: Tensor, backend: Backend, config: str = "static") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)  # nothing of it falls below
        calibration = [x] if config == "static" else None
        return unchecked.quantize(
            model, (x,), calibration=calibration, backend=backend, config=config
        )


def ways(result: Any, x: Tensor, *, compiles: bool = True) -> dict[str, Tensor]:
    with torch.no_grad():
        found = {"quantized": result.quantized(x), "module": result.module(x)}
        if compiles:
            found["compiled"] = result.compile()(x)
    return found


def host() -> Backend:
    return backends.get("x86")


def is_near(model: nn.Module, x: Tensor, config: str = "static", *, compiles: bool) -> None:
    """Hold every way to call what is made of ``model`` against it."""
    found = ways(quantized(model, x, host(), config), x, compiles=compiles)
    for way, given in found.items():
        assert sqnr(model(x), given) > 35, way


@pytest.mark.parametrize("compiles", COMPILES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "data"), [(Residual, images), (Mlp, rows)])
def test_small_inputs(
    kind: Callable[[], nn.Module], data: Callable[[], Tensor], size: float, compiles: bool
) -> None:
    model, x = made(kind), data() * size
    is_near(model, x, compiles=compiles)


def test_small_inputs_compiled() -> None:
    """The one of these that CI compiles; a dynamic range is compiled further below."""
    is_near(made(Mlp), rows() * 1e-30, compiles=True)


@pytest.mark.parametrize("compiles", COMPILES)
@pytest.mark.parametrize("size", [1e-3, 1e-14, pytest.param(1e-8, marks=SWEPT)])
@pytest.mark.parametrize(("kind", "data"), [(Residual, images), (Mlp, rows)])
def test_small_weights(
    kind: Callable[[], nn.Module], data: Callable[[], Tensor], size: float, compiles: bool
) -> None:
    """Of the first layer: of several, products would leave the floats before scales do."""
    model, x = made(kind), data()
    with torch.no_grad():
        next(model.parameters()).mul_(size)
    is_near(model, x, compiles=compiles)


@pytest.mark.parametrize("compiles", COMPILES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("config", ["dynamic", "weight-only"])
def test_small_inputs_of_other_modes(config: str, size: float, compiles: bool) -> None:
    model, x = made(Mlp), rows() * size
    is_near(model, x, config, compiles=compiles)


@pytest.mark.parametrize("compiles", COMPILES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("config", ["dynamic", "weight-only"])
def test_small_weights_of_other_modes(config: str, size: float, compiles: bool) -> None:
    model, x = made(lambda: nn.Sequential(nn.Linear(32, 64, bias=False))), rows()
    with torch.no_grad():
        next(model.parameters()).mul_(size)
    is_near(model, x, config, compiles=compiles)


def test_a_dynamic_range_follows_each_call() -> None:
    """Zeros, tiny numbers and large ones, through one compiled module."""
    model = made(lambda: nn.Sequential(nn.Linear(32, 16)))
    x = rows()
    result = quantized(model, x, host(), "dynamic")
    compiled = result.compile()
    with torch.no_grad():
        for run in (result.quantized, result.module, compiled):
            assert torch.allclose(run(torch.zeros_like(x)), model(torch.zeros_like(x)), atol=1e-7)
            for size in (1e-30, 1e-6, 1e6, 1e30):
                assert sqnr(model(x * size), run(x * size)) > 35, (run, size)


@pytest.mark.parametrize("engine", ["x86", "fbgemm", "onednn", "qnnpack"])
@pytest.mark.parametrize("size", [1e-3, 1e-30, pytest.param(1e-20, marks=SWEPT)])
def test_small_inputs_on_native(engine: str, size: float) -> None:
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"torch has no {engine} here")
    model, x = made(Residual), images() * size
    result = quantized(model, x, backends.get("native", engine=engine))
    assert sqnr(model(x), result.quantized(x)) > 34  # its results are rounded as well
    assert sqnr(result.quantized(x), result.module(x)) > 34


@pytest.mark.parametrize("size", SIZES)
def test_small_inputs_on_xpu(size: float) -> None:
    model, x = made(Residual), images() * size
    result = quantized(model, x, backends.get("xpu", target="any"))
    assert sqnr(model(x), result.quantized(x)) > 35


@pytest.mark.parametrize("observer", ["histogram", "min_max", "mse", "moving_average"])
@pytest.mark.parametrize("size", SIZES)
def test_every_observer_follows(observer: Any, size: float) -> None:
    model, x = made(Mlp), rows() * size
    result = quantized(model, x, backends.get("x86", target="any", observer=observer))
    assert sqnr(model(x), result.quantized(x)) > 33


@pytest.mark.parametrize("size", [1e-8, 1e-30, pytest.param(1e-20, marks=SWEPT)])
def test_smoothing_follows(size: float) -> None:
    model = made(lambda: nn.Sequential(nn.Linear(32, 16, bias=False)))
    x = torch.randn(2048, 32, generator=torch.Generator().manual_seed(1))
    x[:, ::4] *= 30
    backend = backends.get("x86", smooth=0.8)
    unit = sqnr(model(x), quantized(model, x, backend).quantized(x))
    small = sqnr(model(x * size), quantized(model, x * size, backend).quantized(x * size))
    assert unit > 35
    assert small == pytest.approx(unit, abs=1)


@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize("size", [1e-3, 1e-30, pytest.param(1e-8, marks=SWEPT)])
def test_training_rounds_small_values_as_well(size: float, learn_scales: bool) -> None:
    model, x = made(Mlp), rows() * size
    trained = unchecked.prepare_qat(
        copy.deepcopy(model), (x,), calibration=[x], learn_scales=learn_scales
    )
    output = trained(x)
    (output / size).square().mean().backward()
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert sqnr(model(x), output.detach()) > 33
    result = quantfx.convert_qat(trained)
    assert sqnr(model(x), result.module(x)) > 33
    assert sqnr(result.quantized(x), result.module(x)) > 60


def test_what_torchao_does_is_what_it_does_here() -> None:
    """Its floor is asked for with its observers, and said to round small values away."""
    model, x = made(Mlp), rows() * 1e-8
    backend = backends.get("x86", target="any", observer="histogram", weight_observer="min_max")
    with warned("scale", site="first (linear).input", says=r"is 0\.000244"):
        result = unchecked.quantize(model, (x,), backend=backend)
    assert not result.quantized(x).any()
