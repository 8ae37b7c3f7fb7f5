"""The network that pages and tables are tried on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Has every module and operator that the pages name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.layers = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.pool = nn.MaxPool2d(2)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, 3, 8, 8)`` to logits ``(n, 3)``."""
        rows = self.pool(self.layers(self.stem(x))).flatten(2).transpose(1, 2)
        rows = torch.matmul(torch.softmax(self.mix(rows), -1), rows.mean(1)[:, :, None])[..., 0]
        logits: Tensor = self.head(rows[:, :4])
        return logits
