"""Small random models whose computation depends on the sizes of what they are called with."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 4
LONGEST = 16


def _branch_on_rows(x: Tensor) -> Tensor:
    return x * 2 if x.size(0) > 3 else x - 1


def _branch_on_length(x: Tensor) -> Tensor:
    return x.flip(1) if x.size(1) % 2 else x


STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows in a view": lambda x: x.view(x.size(0), -1, 2).relu().view(x.size(0), -1, CHANNELS),
    "all in a view": lambda x: x.reshape(-1, CHANNELS).sin().reshape(*x.shape),
    "rows folded": lambda x: x.reshape(1, -1, CHANNELS).cos().reshape(x.shape),
    "rows flattened": lambda x: torch.unflatten(x.flatten(0, 1).softmax(0), 0, (-1, x.size(1))),
    "rows split": lambda x: torch.cat([x[: x.size(0) // 2] + 1, x[x.size(0) // 2 :]]),
    "rows as a factor": lambda x: x / x.size(0),
    "rows numbered": lambda x: x + torch.arange(x.size(0))[:, None, None],
    "rows rolled": lambda x: x.roll(x.size(0) - 1, 0),
    "rows averaged": lambda x: x - x.mean(0, keepdim=True),
    "rows expanded": lambda x: x[:1].expand(x.size(0), -1, -1) + x,
    "rows decide": _branch_on_rows,
    "length decides": _branch_on_length,
    "length as a factor": lambda x: x * x.size(1),
    "length padded": lambda x: F.pad(x, (0, 0, 0, LONGEST - x.size(1)))[:, : x.size(1)] + 1,
    "length masked": lambda x: x * torch.ones(x.size(1), x.size(1)).tril().sum(1)[:, None],
    "length halved": lambda x: torch.cat(x.chunk(2, 1), 1).tanh(),
    "length pooled": lambda x: F.adaptive_avg_pool1d(x.transpose(1, 2), 3).mean(-1)[:, None] + x,
}


class SizedNet(nn.Module):
    """A linear, two steps that know sizes, a linear; reads N x L x 4.

    Args:
        seed: Decides everything.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps = random.Random(seed).sample(sorted(STEPS), 2)
        self.first = nn.Linear(CHANNELS, CHANNELS)
        self.last = nn.Linear(CHANNELS, CHANNELS)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for step in self.steps:
            x = STEPS[step](x)
        y: Tensor = self.last(x)
        return y
