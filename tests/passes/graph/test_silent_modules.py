"""Modules that left no operator are known by path and class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantfx import capture
from quantfx.passes.graph.silent_modules import SilentModule, silent_modules


class Aliased(nn.Module):
    """A layer under two names, an identity, and a layer that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.inner = nn.Sequential(nn.Identity(), nn.ReLU())
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(self.first(x))
        return y


def test_silent_modules_are_recorded_with_the_graph() -> None:
    graph = capture(Aliased().eval(), torch.randn(2, 4))
    found = silent_modules(graph)
    assert SilentModule("inner.0", "Identity") in found
    assert SilentModule("unused", "Linear") in found
    [alias] = [each for each in found if each.same_as]
    assert {alias.path, alias.same_as} == {"first", "again"}
    assert len(found) == 3
