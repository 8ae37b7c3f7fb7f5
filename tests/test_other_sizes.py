"""Every way to call a result equals the q/dq graph at sizes and in layouts not captured with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

import quantfx
from quantfx.backends import inductor
from quantfx.backends.torch_internals import inductor_settings
from tests.random_graphs import RandomNet

CI = (3, 12, 41)
SWEEP = range(120)
EXAMPLE = 4
SIZES = (4, 1, 2, 7)
DECIBELS = 30


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


@pytest.mark.parametrize("seed", CI)
def test_random_graphs(seed: int) -> None:
    holds(seed)


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
        return inductor_settings(**{**settings, "size_asserts": True})

    monkeypatch.setattr(inductor, "inductor_settings", asserting)
    net = RandomNet(seed)
    (x, *_) = net.inputs(EXAMPLE)
    result = quantfx.quantize(net, (x,), calibration=[x])
    fast = result.compile()
    for size in SIZES:
        for given in net.inputs(size):
            fast(given)
