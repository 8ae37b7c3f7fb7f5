"""What stands between convolutions of vision models is inside of their region."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx import backends
from tests import unchecked

BETWEEN: dict[str, tuple[Callable[[Tensor], Tensor] | nn.Module, int]] = {
    "upsample": (nn.Upsample(scale_factor=2), 8),
    "upsample to a size": (lambda x: F.interpolate(x, size=(12, 24)), 8),
    "pixel shuffle": (nn.PixelShuffle(2), 2),
    "pixel unshuffle": (nn.PixelUnshuffle(2), 32),
    "channel shuffle": (nn.ChannelShuffle(4), 8),
    "chunk": (lambda x: torch.cat([x.chunk(2, 1)[1], x], 1), 12),
    "split": (lambda x: torch.cat([torch.split(x, [3, 5], 1)[0], x], 1), 11),
    "stack": (lambda x: torch.stack([x, x.neg()], 2).flatten(1, 2), 16),
    "group norm": (nn.GroupNorm(2, 8), 8),
    "group norm without factors": (nn.GroupNorm(4, 8, affine=False), 8),
    "instance norm": (nn.InstanceNorm2d(8, affine=True), 8),
    "prelu": (nn.PReLU(8), 8),
    "prelu of one": (nn.PReLU(), 8),
    "mish": (nn.Mish(), 8),
    "softplus": (nn.Softplus(beta=2), 8),
    "square": (lambda x: x**2, 8),
    "powers": (lambda x: x**3 + (x.abs() + 0.5) ** -1.5 + (x.abs() + 1).reciprocal(), 8),
}


class Between(nn.Module):
    """A convolution, something behind it, and another convolution."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.between, width = BETWEEN[name]
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(width, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x).relu() - 0.5))


@pytest.mark.parametrize("name", BETWEEN)
def test_it_is_inside_and_within_a_step(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 8)
    model = Between(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    result = unchecked.quantize(model, (x,), backend=backends.get("x86"))
    lowered = result.module.graph
    assert not [
        n.name for n in lowered.nodes if n.op == "call_function" and n.target is not getitem
    ]
    assert len(lowered.find_nodes(op="call_module", target="region_0")) == 1
    wrong = [each for each in result.compare_sites() if not each.within(1, 1e-5)]
    assert not wrong
    with torch.no_grad():
        expected, found = result.quantized(x), result.module(x)
    # A tie may round to the other side on the way.
    noise = (expected - found).square().mean() / expected.square().mean()
    assert float(noise) < 1e-4


def test_other_sizes_and_layouts_of_a_move() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 8)
    result = unchecked.quantize(Between("upsample").eval(), (x,), backend=backends.get("x86"))
    for given in (x[:1], x.to(memory_format=torch.channels_last)):
        assert torch.allclose(result.module(given), result.quantized(given), atol=1e-3)


def test_sizes_that_are_no_multiples_stay_outside() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 8)
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Upsample(size=(9, 9)), nn.Conv2d(8, 8, 1)).eval()
    result = unchecked.quantize(model, (x,), backend=backends.get("x86"))
    assert "aten.upsample_nearest2d" in str(result.module.code)


class AfterNothing(nn.Module):
    """Puts values behind an empty tensor of one dimension, as the first call of a cache does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.cat([torch.zeros(0), self.first(x)], -2))


def test_what_stands_behind_nothing_stays_outside() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 8)
    result = unchecked.quantize(AfterNothing().eval(), (x,), backend=backends.get("x86"))
    torch.testing.assert_close(result.module(x), result.quantized(x), atol=0.05, rtol=0)
