"""Linear interpolation in regions, in one to three dimensions and both orders of memory."""

from __future__ import annotations

from operator import getitem
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.backends.direct.rules import interpolate
from quantfx.tools.models.seeded import seeded
from tests import unchecked

CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "signal": (1, {"scale_factor": 2.5, "mode": "linear"}),
    "image": (2, {"scale_factor": 2, "mode": "bilinear"}),
    "corners": (2, {"size": (11, 9), "mode": "bilinear", "align_corners": True}),
    "smaller": (2, {"scale_factor": (1.7, 0.6), "mode": "bilinear"}),
    "one place": (2, {"size": (1, 1), "mode": "bilinear"}),
    "volume": (3, {"size": (5, 3, 7), "mode": "trilinear"}),
}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Resized(nn.Module):
    """A convolution, an interpolation of what it makes, and another convolution."""

    def __init__(self, rank: int, how: dict[str, Any]) -> None:
        super().__init__()
        kind = CONVOLUTIONS[rank]
        self.first, self.second, self.how = kind(3, 300, 1), kind(300, 4, 1), how

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.second(F.interpolate(self.first(x).relu(), **self.how))
        return made


def quantized(model: nn.Module, x: Tensor) -> quantfx.Result:
    return unchecked.quantize(model, (x,), backend=backends.get("x86", kernels="direct"))


def outside(result: quantfx.Result) -> list[str]:
    nodes = result.module.graph.find_nodes
    calls = [n for n in result.module.graph.nodes if n.op == "call_function"]
    assert len(nodes(op="call_module", target="region_0")) == 1
    return [str(node.target) for node in calls if node.target is not getitem]


@pytest.mark.parametrize("name", CASES)
def test_it_is_inside_and_exact(name: str) -> None:
    rank, how = CASES[name]
    x = torch.randn(2, 3, *(4, 5, 6)[:rank])
    result = quantized(seeded(lambda: Resized(rank, how)), x)
    assert not outside(result)
    for given in (x, x[:1]):
        expected = result.quantized(given)
        assert torch.allclose(result.module(given), expected, atol=0.01 * float(expected.std()))
    assert all(each.within(1, 1e-5) for each in result.compare_sites(x))


class InOrder(nn.Module):
    """What is interpolated lies row by row, in float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).flatten(2).softmax(-1).unflatten(2, x.shape[2:])
        made: Tensor = self.second(F.interpolate(y, scale_factor=3.0, mode="bilinear"))
        return made


def test_rows_of_one_channel_after_the_other() -> None:
    x = torch.randn(2, 3, 4, 100)  # rows of the result are longer than a block of the loop
    result = quantized(seeded(InOrder), x)
    assert not outside(result)
    expected = result.quantized(x)
    assert torch.allclose(result.module(x), expected, atol=0.01 * float(expected.std()))


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize(
    ("size", "made", "scale"),
    [
        (1, 1, None),
        (1, 4, None),
        (2, 7, None),
        (7, 5, None),
        (5, 12, 2.5),
        (9, 4, 0.5),
        (70000, 1000, None),
        (257, 5000, None),
    ],
)
def test_tables_are_the_weights_of_torch(
    size: int, made: int, scale: float | None, corners: bool
) -> None:
    how = [made] if scale is None else None, corners, None if scale is None else [scale]
    first, second, rest = interpolate._nearest(size, *how).T
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    expected = torch.ops.aten.upsample_linear1d.vec(x[None, None], *how)[0, 0]
    found = x[first.long()] * (1 - rest) + x[second.long()] * rest
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_dtype_of_a_call_does_not_matter(dtype: torch.dtype) -> None:
    result = quantized(seeded(lambda: Resized(*CASES["image"])), torch.randn(2, 3, 4, 5))
    x = torch.randn(1, 3, 4, 5)
    expected = result.quantized(x)
    torch.set_default_dtype(dtype)
    try:
        found = result.module(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.allclose(found, expected, atol=0.01 * float(expected.std()))
