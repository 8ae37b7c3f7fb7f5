"""Small random models, and inputs of sizes and layouts that they were not captured with."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANKS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class RandomNet(nn.Module):
    """Convolutions of one to three dimensions, with sums, pools and a linear at the end.

    Channel counts of one and sizes of one are as likely as others.

    Args:
        seed: Decides everything.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        choose = random.Random(seed)
        torch.manual_seed(seed)
        self.rank = choose.choice((1, 2, 2, 2, 3))
        self.sizes = [choose.choice((1, 5, 8)) for _ in range(self.rank)]
        self.channels = choose.choice((1, 1, 3, 4))
        self.layers = nn.ModuleList()
        self.kinds: list[str] = []
        channels = self.channels
        for _ in range(choose.randint(1, 4)):
            kind = choose.choice(("conv", "conv", "depthwise", "residual", "pool", "norm"))
            out = channels if kind in ("depthwise", "residual") else choose.choice((1, 4, 8))
            if kind == "pool":
                self.layers.append(nn.Identity())
            else:
                groups = channels if kind == "depthwise" else 1
                kernel = choose.choice((1, 3))
                conv = RANKS[self.rank](channels, out, kernel, padding=kernel // 2, groups=groups)
                norm = NORMS[self.rank](out) if kind == "norm" else nn.Identity()
                self.layers.append(nn.Sequential(conv, norm))
                channels = out
            self.kinds.append(kind)
        if all(kind == "pool" for kind in self.kinds):
            self.kinds[0] = "conv"
            self.layers[0] = RANKS[self.rank](channels, channels, 1)
        self.head = nn.Linear(channels, 3) if choose.random() < 0.5 else None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            if kind == "pool":
                x = F.avg_pool2d(x, 3, 1, 1) if self.rank == 2 else F.relu(x)
            elif kind == "residual":
                x = F.relu(layer(x) + x.sigmoid())
            else:
                x = F.relu(layer(x))
        if self.head is None:
            return x
        return self.head(x.flatten(2).mean(-1))

    def inputs(self, batch: int) -> list[Tensor]:
        """Return inputs of that many rows in several layouts: equal shapes, other strides."""
        shape = (batch, self.channels, *self.sizes)
        x = torch.randn(shape)
        wide = torch.randn(batch, 2 * self.channels, *self.sizes)[:, :: 2 if batch % 2 else 1]
        memory = {2: torch.channels_last, 3: torch.channels_last_3d}.get(self.rank)
        return [
            x,
            wide[:, : self.channels],
            x[:1].expand(shape),
            torch.randn(2 * batch, *shape[1:])[::2],
            x.transpose(1, -1).contiguous().transpose(1, -1),
            *([] if memory is None else [x.to(memory_format=memory)]),
        ]
