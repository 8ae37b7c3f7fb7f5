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
