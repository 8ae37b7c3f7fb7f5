"""At sizes and in layouts not captured with, every way to call a result is right, or refuses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

import quantfx
from quantfx.backends.inductor import compile as inductor
from quantfx.backends.inductor.torch_internals import inductor_settings
from quantfx.passes.errors import InputError
from tests.random_graphs import RandomNet
from tests.sized_graphs import CHANNELS, SizedNet

CI_SIZED = range(6)
SWEEP = range(120)
EXAMPLE = 4
SIZES = (4, 1, 2, 7)
DECIBELS = 30
LENGTHS = (6, 5, 1)


def ways(result: quantfx.Result, wrapper: Any, whole: bool) -> dict[str, Callable[..., Any]]:
    torch.compiler.reset()
    found: dict[str, Callable[..., Any]] = {
        "module": result.module,
        "compiled": result.compile(wrapper=wrapper),
    }
    if whole:
        found["quantfx_lower"] = torch.compile(result.quantized, backend="quantfx_lower")
    return found


def holds(seed: int, wrapper: str = "python", *, whole: bool = False) -> None:
    """Compare all ways to call a random network's result, or a quick part of them.

    Every layout is one more form to compile for: the quick part has two.
    """
    net = RandomNet(seed)
    (x, *_) = net.inputs(EXAMPLE)
    shapes = ({0: Dim.AUTO},) if seed % 3 == 0 else None
    result = quantfx.quantize(net, (x,), calibration=net.inputs(EXAMPLE), dynamic_shapes=shapes)
    for name, run in ways(result, wrapper, whole).items():
        for size in SIZES:
            for given in net.inputs(size)[:: 1 if whole else 3]:
                with torch.no_grad():
                    ours, reference = run(given), result.quantized(given)
                assert ours.shape == reference.shape, (name, size)
                assert ratio(ours, reference) > DECIBELS, (name, size, given.stride())


def ratio(ours: Tensor, reference: Tensor) -> float:
    """Signal to noise in dB: noise gives none, a few roundings to the other side 50 and more."""
    noise = (ours - reference).double().pow(2).sum()
    signal = reference.double().pow(2).sum()
    return float(10 * torch.log10(signal.clamp_min(1e-20) / noise.clamp_min(1e-24)))


def is_right_or_refused(seed: int, free: int) -> None:
    """Compare a random network with what is made of it, captured with so many free dimensions."""
    net = SizedNet(seed)
    example = torch.randn(EXAMPLE, LENGTHS[0], CHANNELS)
    shapes = (dict.fromkeys(range(free), Dim.AUTO),) if free else None
    captured = quantfx.capture(net, (example,), dynamic_shapes=shapes)
    result = quantfx.quantize(net, (example,), calibration=[example], dynamic_shapes=shapes)
    for rows in SIZES:
        for length in LENGTHS:
            given = torch.randn(rows, length, CHANNELS)
            try:
                found = captured(given)
            except InputError:
                assert given.shape != example.shape
                for run in (result.quantized, result.module):
                    with pytest.raises(InputError):
                        run(given)
            else:
                torch.testing.assert_close(found, net(given), atol=1e-5, rtol=1e-5)
                assert ratio(result.module(given), result.quantized(given)) > DECIBELS


@pytest.mark.parametrize("seed", CI_SIZED)
def test_random_graphs_that_know_sizes(seed: int) -> None:
    is_right_or_refused(seed, seed % 3)


@pytest.mark.sweep
@pytest.mark.parametrize("free", range(3))
@pytest.mark.parametrize("seed", SWEEP)
def test_all_random_graphs_that_know_sizes(seed: int, free: int) -> None:
    is_right_or_refused(seed, free)


@pytest.mark.sweep
@pytest.mark.parametrize("wrapper", ["python", "cpp"])
@pytest.mark.parametrize("seed", SWEEP)
def test_all_random_graphs(seed: int, wrapper: str) -> None:
    holds(seed, wrapper, whole=True)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", SWEEP)
def test_declared_layouts_are_the_real_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor's own asserts, which our compile leaves out, compare them at every kernel."""

    def asserting(**settings: Any) -> AbstractContextManager[None]:
        return inductor_settings(**(settings | {"size_asserts": True}))

    monkeypatch.setattr(inductor, "inductor_settings", asserting)
    net = RandomNet(seed)
    (x, *_) = net.inputs(EXAMPLE)
    result = quantfx.quantize(net, (x,), calibration=[x])
    fast = result.compile()
    for size in SIZES:
        for given in net.inputs(size):
            fast(given)
