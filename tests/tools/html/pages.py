"""A small model, with a name that no page may take for markup, and its page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx

HOSTILE = "</script><img src=x onerror=alert(1)>"
X = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.norm(self.conv1(x)))) + x)


class Net(nn.Module):
    def __init__(self, name: str = HOSTILE) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name = name
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = Block()
        self.add_module(name, Block())

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        return torch.erf(self.get_submodule(self.name)(self.block(y))).reshape(-1, 256)


@dataclass(frozen=True)
class Quantized:
    """A result with what a page can show of it."""

    result: quantfx.Result
    comparison: quantfx.Comparison
    stages: dict[str, GraphModule]


@lru_cache
def quantized() -> Quantized:
    model = Net().eval()
    result = quantfx.quantize(model, X, calibration=[X])
    graph = quantfx.capture(model, X)
    comparison = result.compare([X], model=model, progress=False)
    return Quantized(result, comparison, {"captured": graph})


class Branches(nn.Module):
    """Layers that prepared plans compute in one region, and a choice between two branches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3))

        def left(y: Tensor) -> Tensor:
            return torch.relu(self.left(y)) * 2

        def right(y: Tensor) -> Tensor:
            return torch.relu(self.right(y)) + 1

        chosen: Tensor = torch.cond(y.sum() > 0, left, right, (y,))
        return chosen
