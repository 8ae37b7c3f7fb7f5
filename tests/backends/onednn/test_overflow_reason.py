"""Sums times the input's scale that float32 does not hold: kernels refuse them, and are right below."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quantfx import Result, backends
from quantfx.passes.errors import ContractError
from tests import unchecked
from tests.refusals import refused

Layer = nn.Linear | nn.Conv2d
LAYERS = [nn.Linear(8, 8), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4)]
SHAPES = {nn.Linear: (5, 8), nn.Conv2d: (2, 4, 9, 9)}


def quantized(layer: Layer, backend: str, largest: float) -> tuple[Result, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(SHAPES[type(layer)]).clamp(-1, 1) * largest
    nn.init.normal_(layer.eval().weight, std=1e-4)
    return unchecked.quantize(layer, (x,), backend=backends.get(backend)), x


@pytest.mark.parametrize("backend", ["x86", "native"])
@pytest.mark.parametrize("layer", LAYERS)
def test_what_may_overflow_is_refused(layer: Layer, backend: str) -> None:
    result, _ = quantized(layer, backend, 3e38)
    says = "times the input's scale, 2.4e+36, may pass what torch.float32 holds"
    with refused("no-kernel", ContractError) as caught:
        _ = result.module
    assert says in str(caught.value)


@pytest.mark.parametrize("backend", ["x86", "native"])
@pytest.mark.parametrize("layer", LAYERS)
def test_what_is_just_below_is_right(layer: Layer, backend: str) -> None:
    products = layer.weight.numel() // min(layer.weight.shape[:2])
    scale = torch.finfo(torch.float32).max / (255 * 128 * products) * 0.999
    result, x = quantized(layer, backend, scale * 255 / 2)
    expected = result.quantized(x)
    found = result.module(x)
    assert result.report.lowered == 1
    step = float(expected.abs().max()) / 100  # native rounds results, to a step below this
    torch.testing.assert_close(
        found, expected, rtol=0, atol=step if backend == "native" else step / 1e4
    )
