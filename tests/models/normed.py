"""Small networks of layers with batch norms behind them, of every kind that training fuses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.passes.train.qat_module import QatModule

EPS, MOMENTUM = 1e-3, 0.03


class Normed(nn.Module):
    """A layer, its batch norm, and what ``behind`` makes of the input and their result."""

    def __init__(
        self,
        layer: nn.Module,
        norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d,
        behind: Callable[[Tensor, Tensor], Tensor] = lambda _, y: y,
    ) -> None:
        super().__init__()
        self.layer, self.norm, self.behind = layer, norm, behind
        self.frozen = False
        for parameter in norm.parameters():  # neither 1 nor 0, and of both signs
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(x, self.norm(self.layer(x)))


def norm1d(channels: int, **options: bool) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, EPS, MOMENTUM, **options)


def norm2d(channels: int, **options: bool) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, EPS, MOMENTUM, **options)


def image(*size: int) -> Tensor:
    return torch.randn(4, *size, generator=torch.Generator().manual_seed(1))


def zero_gamma() -> Normed:
    """As a residual branch is often begun: the batch norm yields its beta alone at first."""
    net = Normed(nn.Conv2d(3, 6, 3), norm2d(6))
    net.norm.weight.data[::2] = 0.0
    return net


def frozen() -> Normed:
    """Its batch norm keeps its statistics while the rest trains."""
    net = Normed(nn.Conv2d(3, 6, 3), norm2d(6), lambda _, y: y.relu())
    net.frozen = True
    return net


# name -> network and example; every layer in them is fused with its batch norm.
NORMED: dict[str, tuple[Callable[[], Normed], Tensor]] = {
    "conv2d": (lambda: Normed(nn.Conv2d(3, 6, 3), norm2d(6)), image(3, 8, 8)),
    "conv2d, no bias": (lambda: Normed(nn.Conv2d(3, 6, 3, bias=False), norm2d(6)), image(3, 8, 8)),
    "conv2d, no parameters": (
        lambda: Normed(nn.Conv2d(3, 6, 3), norm2d(6, affine=False)),
        image(3, 8, 8),
    ),
    "conv2d, same padding": (
        lambda: Normed(nn.Conv2d(3, 6, 4, padding="same"), norm2d(6)),
        image(3, 8, 8),
    ),
    "grouped": (lambda: Normed(nn.Conv2d(4, 6, 3, 2, 1, groups=2), norm2d(6)), image(4, 8, 8)),
    "depthwise": (lambda: Normed(nn.Conv2d(6, 6, 3, groups=6), norm2d(6)), image(6, 8, 8)),
    "zero gamma": (zero_gamma, image(3, 8, 8)),
    "frozen": (frozen, image(3, 8, 8)),
    "relu": (
        lambda: Normed(nn.Conv2d(3, 6, 3), norm2d(6), lambda _, y: y.relu()),
        image(3, 8, 8),
    ),
    "hardswish": (
        lambda: Normed(nn.Conv2d(3, 6, 3), norm2d(6), lambda _, y: F.hardswish(y)),
        image(3, 8, 8),
    ),
    "add relu": (
        lambda: Normed(nn.Conv2d(4, 4, 1), norm2d(4), lambda x, y: (y + x.exp()).relu()),
        image(4, 8, 8),
    ),
    "conv1d": (
        lambda: Normed(nn.Conv1d(3, 6, 3), norm1d(6), lambda _, y: y.relu()),
        image(3, 16),
    ),
    "conv3d": (
        lambda: Normed(nn.Conv3d(3, 6, 3), nn.BatchNorm3d(6, EPS, MOMENTUM)),
        image(3, 5, 5, 5),
    ),
    "linear": (
        lambda: Normed(nn.Linear(8, 6), norm1d(6), lambda _, y: y.relu()),
        image(8),
    ),
    "linear add": (
        lambda: Normed(nn.Linear(8, 8), norm1d(8), lambda x, y: (y + x).relu()),
        image(8),
    ),
    "linear, no bias, silu": (
        lambda: Normed(nn.Linear(8, 6, bias=False), norm1d(6), lambda _, y: F.silu(y)),
        image(8),
    ),
}


def normed(name: str) -> tuple[Normed, Tensor]:
    """Return the network called ``name``, in training mode, and an example."""
    make, x = NORMED[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
        for key, buffer in net.named_buffers():
            if buffer.is_floating_point():
                nn.init.uniform_(buffer, 0.5 if key.endswith("var") else -0.5, 2.0)
    net.train()
    net.norm.train(not net.frozen)
    return net, x


def round_nothing(module: QatModule) -> None:
    """Let ``module`` scale weights and scale results back as ever, and round nothing.

    ``fake_quantize(False)`` takes the scaling away as well.
    """
    for each in module.fake_quantizes():
        each.quantizing = False
