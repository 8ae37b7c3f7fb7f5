"""Operators that are not torch's own, as libraries of experts and of boxes bring them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.library.custom_op("quantfx_tests::experts", mutates_args=())
def experts(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply, where no graph shows it."""
    return x @ weight


@experts.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


class Experts(nn.Module):
    """A product in an operator of another library, and a small layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 64) / 8)
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = experts(x, self.weight)
        return self.head(hidden)
