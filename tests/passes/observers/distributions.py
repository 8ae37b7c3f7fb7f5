"""Random activations of the kinds that networks produce, for the observer tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

KINDS: dict[str, Callable[[int, Generator], Tensor]] = {
    "normal": lambda n, g: torch.randn(n, generator=g),
    "uniform": lambda n, g: torch.rand(n, generator=g),
    "off_zero": lambda n, g: torch.rand(n, generator=g) + 3,
    "heavy_tail": lambda n, g: torch.randn(n, generator=g) ** 3,
    "cauchy": lambda n, g: torch.randn(n, generator=g) / torch.rand(n, generator=g).add(1e-4),
    "relu": lambda n, g: torch.randn(n, generator=g).relu(),
    "mostly_zero": lambda n, g: torch.randn(n, generator=g).sub(2).relu(),
    "relu6": lambda n, g: functional.relu6(torch.randn(n, generator=g) * 5),
    "silu": lambda n, g: functional.silu(torch.randn(n, generator=g) * 3),
    "exponential": lambda n, g: torch.randn(n, generator=g).exp(),
    "negative": lambda n, g: -torch.randn(n, generator=g).exp(),
    "outlier": lambda n, g: torch.cat(
        [torch.randn(n, generator=g), 100 * torch.randn(1, generator=g)]
    ),
    "integers": lambda n, g: (torch.randn(n, generator=g) * 2).round(),
    "constant": lambda n, g: torch.randn(1, generator=g).expand(n),
    "zeros": lambda n, g: torch.zeros(n),
    "one_value": lambda n, g: torch.randn(1, generator=g),
    "eight_values": lambda n, g: torch.randn(8, generator=g),
    "sixty_four_values": lambda n, g: torch.randn(64, generator=g),
}


def batches(kind: str, seed: int) -> list[Tensor]:
    """Return one to five float32 batches of 2 to 32768 values each, most on growing ranges."""
    g = Generator().manual_seed(seed)
    size, scale, growth, count = torch.rand(4, generator=g).tolist()
    n = int(2 ** (1 + 14 * size))
    return [
        KINDS[kind](n, g) * 10 ** (6 * scale - 3) * (1 + growth * batch)
        for batch in range(1 + int(5 * count))
    ]


def bins_apart(one: Tensor, other: Tensor) -> int:
    """Return by how many bins counts would have to move for one histogram to be the other."""
    ours, theirs = one.double().cumsum(0), other.double().cumsum(0)
    slack = 1e-6 * float(theirs[-1])
    for moved in range(len(one)):
        kept = len(one) - moved
        up = ours[moved:] >= theirs[:kept] - slack
        down = ours[:kept] <= theirs[moved:] + slack
        if bool(up.all() & down.all()):
            return moved
    return len(one)
