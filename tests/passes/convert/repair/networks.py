"""A network whose layers read inputs that vary together, and statistics of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.passes.observers.statistics.statistics import Statistics


class Mixed(nn.Module):
    """Convolutions, one of them depthwise and one without a bias, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 24, 1, bias=False)
        self.last = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = self.depthwise(self.first(x).relu()).relu()
        return self.last(self.point(x).relu().mean((2, 3)))


def images(count: int, seed: int = 0) -> Tensor:
    """Return smooth positive images, ``(count, 3, 12, 12)``."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear")


@cache
def network() -> Mixed:
    """Return the network, with weights from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Mixed().eval()


@cache
def statistics(count: int = 64) -> Statistics:
    """Return what its calibration data holds."""
    batches = list(torch.split(images(count), 4))
    return quantfx.collect(network(), (images(4),), batches, backend=backend(), progress=False)


def backend(*, repair: bool | None = False, **options: Any) -> backends.Backend:
    """Return x86 for a CPU whose sums saturate, without repairs by default."""
    return backends.get("x86", target="avx2", kernels="onednn", repair=repair, **options)
