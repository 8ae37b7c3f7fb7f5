"""Models for torch.compile: small ones, each with one thing that Dynamo treats in its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantfx.dynamo.compile_state import CompileState

WIDTH = 32


class Mlp(nn.Module):
    """Two linears; with a batch norm, whose mode Dynamo sees, or without."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH) if norm else nn.Identity()
        self.second = nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(functional.relu(self.norm(self.first(x))))


class Block(nn.Module):
    """A layer of which a model has many."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.linear(x)) + x


class Branch(nn.Module):
    """A branch on data, which torch.export rejects, and at which Dynamo breaks the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.positive = nn.Linear(WIDTH, 8)
        self.negative = nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first(x))
        if x.sum() > 0:
            return self.positive(hidden)
        return self.negative(hidden)


class Convolutions(nn.Module):
    """A residual block with batch norm, pooling and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu_(self.norm(self.stem(x)))
        x = functional.max_pool2d(x, 2)
        x = functional.relu(self.block(x) + x)
        return self.head(x.mean((2, 3)))


class Twice(nn.Module):
    """One linear used twice, on tensors of different ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(functional.relu(self.linear(x)) * 8)


class Tied(nn.Module):
    """Two linears with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(functional.relu(self.first(x)) * 8)


class Counting(nn.Module):
    """Writes to a buffer in each call, replaces another, and returns a view of its input."""

    calls: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.add_(1)
        self.mean = self.mean * 0.5 + x.mean(0) * 0.5
        return self.linear(x) + self.mean, x[:1]


def batches(count: int, rows: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(rows, WIDTH, generator=generator) * 4 - 2 for _ in range(count)]


def compiled(
    model: nn.Module | Callable[..., Any],
    backend: str = "quantfx_native",
    count: int = 2,
    *,
    dynamic: bool | None = None,
    **options: Any,
) -> tuple[Callable[..., Any], CompileState]:
    """Return ``model`` compiled to observe ``count`` calls, and the state to look at.

    The native kernels need no compiler, so that most tests take no time.
    """
    state = options.pop("state", None) or CompileState()
    given: Any = {"state": state, **options}
    if "calibration" not in options:
        given["calibration_batches"] = count
    return torch.compile(model, backend=backend, dynamic=dynamic, options=given), state


def phases(state: CompileState) -> list[tuple[str, int]]:
    return [(each.phase, each.observed) for each in state.records]


def close(result: Tensor, expected: Tensor) -> bool:
    """Whether an int8 result is what the model computes, as far as 8 bits go."""
    error = (result - expected).square().mean()
    return bool(error < 1e-2 * expected.square().mean())
