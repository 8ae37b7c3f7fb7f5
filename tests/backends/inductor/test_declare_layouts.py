"""Compiled convolutions equal the q/dq graph at sizes they were not captured with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx.backends.inductor.compile import POST_GRAD
from quantfx.backends.inductor.declare_layouts import DeclareLayouts


def test_it_runs_behind_the_fusion_of_sums() -> None:
    assert isinstance(POST_GRAD.passes[-1], DeclareLayouts)


class Net(nn.Module):
    """A convolution on one channel, or on one pixel, at the input or in the middle."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        channels = {"middle": 3, "pixel": 4}.get(kind, 1)
        conv = nn.Conv1d if kind == "1d" else nn.Conv3d if kind == "3d" else nn.Conv2d
        self.first = conv(channels, 8, 1 if kind == "middle" else 3, padding=1)
        self.to_one = nn.Conv2d(8, 1, 1)
        self.last = nn.Conv2d(1, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        return self.last(torch.relu(self.to_one(y))) if self.kind == "middle" else y


SHAPES = {
    "2d": (1, 9, 7),
    "1d": (1, 12),
    "3d": (1, 4, 5, 6),
    "middle": (3, 6, 6),
    "pixel": (4, 1, 1),
}


def layouts(x: Tensor) -> list[Tensor]:
    wide = torch.cat((x, x), -1)[..., : x.shape[-1]]
    last = [x.to(memory_format=torch.channels_last)] if x.dim() == 4 else []
    return [x, wide, *last]


# Each layout is compiled for twice, for one row (in the sweep) and for more.
@pytest.mark.parametrize(
    ("kind", "wrapper", "sizes"),
    [("2d", "python", (5,))]
    + [
        pytest.param(kind, wrapper, (4, 5, 1, 16), marks=pytest.mark.sweep)
        for kind in SHAPES
        for wrapper in ("python", "cpp")
    ],
)
def test_sizes_that_were_not_captured(kind: str, wrapper: str, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Net(kind).eval()
    x = torch.randn(4, *SHAPES[kind])
    result = quantfx.quantize(model, (x,), calibration=[x])
    fast = result.compile(wrapper=wrapper)  # type: ignore[arg-type]
    for size in sizes:
        for given in layouts(torch.randn(size, *SHAPES[kind])):
            torch.testing.assert_close(fast(given), result.module(given), atol=1e-5, rtol=1e-5)


@pytest.mark.sweep
def test_a_library_with_a_free_batch() -> None:
    torch.manual_seed(0)
    model = Net("2d").eval()
    x = torch.randn(4, 1, 9, 7)
    shapes = ({0: Dim.AUTO},)
    result = quantfx.quantize(model, (x,), calibration=[x], dynamic_shapes=shapes)
    fast = result.compile(wrapper="aot")
    for size in (4, 5, 3, 16):
        given = torch.randn(size, 1, 9, 7)
        torch.testing.assert_close(fast(given), result.module(given), atol=1e-5, rtol=1e-5)
