"""Small quantized models to ask about."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quantfx
from quantfx import Config, Result, backends
from quantfx.passes.config.config import ConfigLike
from quantfx.tools.models.seeded import seeded

IMAGE = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Folded(nn.Module):
    """Batch norm, activation, identity, dropout, pool and a head; and a module never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.same, self.drop, self.unused = nn.Identity(), nn.Dropout(), nn.Linear(2, 2)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        logits: Tensor = self.head(self.drop(self.same(x)).mean((2, 3)))
        return logits


class Shared(nn.Module):
    """Two convolutions, joined, pooled and read by a third, which adds a float tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = F.max_pool2d(torch.cat([self.left(x), self.right(x)], 1), 2)
        read: Tensor = self.last(joined)
        return read + read.mean((2, 3), keepdim=True)


class TwoReaders(nn.Module):
    """A convolution over time whose result is read twice, so that no activation belongs to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return F.relu(y) + y.mean()


class WithoutGradients(nn.Module):
    """A network that computes without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.relu(self.first(x)))
        return y


class Recurrent(nn.Module):
    """An LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(x)[0])
        return y


class Branches(nn.Module):
    """Control flow with a linear in each branch."""

    def __init__(self) -> None:
        super().__init__()
        self.yes, self.no = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.cond(
            x.sum() > 0, lambda x: self.yes(x), lambda x: F.relu(self.no(x)), (x,)
        )
        return y


def explained(
    model: type[nn.Module],
    x: Tensor = IMAGE,
    *,
    backend: str = "x86",
    config: ConfigLike = "static",
) -> Result:
    """Return a quantized model, for a CPU without VNNI."""
    target = {"target": "any"} if backend == "native" else {"target": "avx2"}
    chosen = backends.get(backend, config=config, **target)
    batches = None if config == "dynamic" else [x, -x]
    return quantfx.quantize(
        seeded(model).eval(), x, calibration=batches, backend=chosen, strict=False, progress=False
    )


@functools.cache
def folded() -> Result:
    """Return ``Folded``, with exact ranges; nobody changes it."""
    observed = Config().activations(observer="min_max").weights(observer="min_max")
    return explained(Folded, config=observed)


@functools.cache
def shared() -> Result:
    """Return ``Shared``; nobody changes it."""
    return explained(Shared)
