"""Sums of pairs at the very bound of 16 bits: which neighbours kernels add is what the bound says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from quantfx import backends
from quantfx.backends.direct.region import Region
from quantfx.passes.quant.qparams import saturates
from tests import unchecked
from tests.backends.direct.qdq_cases import A, Draw, QParams, make_graph, quantize, round_trip
from tests.models.small import residual_block

WORST = QParams(1.0, 0, 0, 255, torch.uint8)
OUT = QParams(256.0, 128, 0, 255, torch.uint8)


def bounded(*shape: int, pairing: str) -> Tensor:
    """Weights of one sign whose pairs sum up to 128, and whose other neighbours to 254."""
    weight = torch.ones(shape, dtype=torch.int8)
    weight[:, ::4], weight[:, 1::4] = 127, 1
    weight[:, 2::4], weight[:, 3::4] = 1, 127
    if pairing == "adjacent":  # any two that are next to each other
        weight[:] = 64
    assert not saturates(weight, 255, pairing).any()  # type: ignore[arg-type]
    weight[1::2] = -weight[1::2]
    return weight


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [4, 16, 20, 48])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_add_the_pairs_that_are_bounded(
    kernel: int, channels: int, groups: int
) -> None:
    draw = Draw(0)
    weight = bounded(24, channels // groups, kernel, kernel, pairing="blocks")
    draw.constant("w", weight)
    draw.constant("w_scales", torch.ones(1))
    draw.constant("w_zeros", torch.zeros(1, dtype=torch.int64))

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        x = round_trip(inputs[0], WORST)
        y = A.conv2d.default(x, model.weight("w"), None, [1, 1], [kernel // 2] * 2, [1, 1], groups)
        return [quantize(y, OUT), A.relu.default(A.neg.default(y))]

    region = Region(make_graph(draw, 1, build))
    x = torch.full((2, channels, 9, 9), 255.0)
    for found, expected in zip(region(x), region.graph(x), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("width", [1, 2, 8, 33, 256])
def test_linears_add_the_pairs_that_are_bounded(width: int) -> None:
    draw = Draw(0)
    draw.constant("w", bounded(24, width, pairing="adjacent"))
    draw.constant("w_scales", torch.ones(1))
    draw.constant("w_zeros", torch.zeros(1, dtype=torch.int64))

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.linear.default(round_trip(inputs[0], WORST), model.weight("w"), None)]

    region = Region(make_graph(draw, 1, build))
    x = torch.full((5, width), 255.0)
    assert torch.equal(region(x)[0], region.graph(x)[0])


def test_the_graphs_of_a_gpu_run_here_to_look_at_their_numbers() -> None:
    x = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    backend = backends.get("xpu", kernels="direct")
    result = unchecked.quantize(residual_block(), (x,), backend=backend)
    assert {site.kernel.partition(".")[0] for site in result.report.sites if site.kernel} == {
        "direct"
    }
    assert all(site.within(1, 1e-5) for site in result.compare_sites())
    found, expected = result.module(x), result.quantized(x)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
