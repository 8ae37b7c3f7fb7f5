"""Small networks in which sizes depend on what the inputs hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Sized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 4)


class SelectedRows(_Sized):
    """Rows chosen by a mask between two linears."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        y = self.a(x)
        return self.b(y[x[:, 0] > 0])


class SelectedSum(_Sized):
    """A residual sum of chosen rows: its shapes are to be compared."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        rows = x[x[:, 0] > 0]
        return self.b(torch.relu(self.a(rows) + rows))


class SelectedAtEnd(_Sized):
    """A result whose size depends on data, behind layers for which none does."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        y = self.a(x)
        return y[x > 0]


class Counted(_Sized):
    """A number read from data makes a tensor of that size, as durations in speech synthesis do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Compute."""
        count: Any = (x[:, 0] > 0).sum().item()
        check: Any = torch._check  # which has no types
        check(count >= 2)
        steps = torch.arange(count)[:, None].float()
        return self.b(self.a(0.1 * steps.expand(count, 8)) * steps), count


class Detections(nn.Module):
    """Images chosen by a score, pooled and classified."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        y = torch.relu(self.features(x))
        kept = (x.mean((1, 2, 3)) > 0).nonzero()[:, 0]
        return self.head(torch.max_pool2d(y[kept], 2).mean((2, 3)))


ROWS = (SelectedRows, SelectedSum, SelectedAtEnd, Counted)


class SelectedFrames(nn.Module):
    """Two layers, of which one stays float, and as many frames as the input says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(8, 8, 3, padding=1)
        self.longer = nn.ConvTranspose1d(8, 4, 2, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x).relu()
        return self.longer(y), y[:, :, x[0, 0] > 0] + 1.0
