"""Random convolutions and linears with everything around them that lowering has to get right."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_ACTIVATIONS = (None, "ReLU", "Hardtanh", "ReLU6", "Hardswish", "SiLU")
LINEAR_ACTIVATIONS = (*CONV_ACTIVATIONS, "LeakyReLU", "Tanh", "GELU", "GELU tanh")


def activation(name: str | None) -> nn.Module:
    """Return the activation of that name, an identity for None."""
    if name is None:
        return nn.Identity()
    if name == "GELU tanh":
        return nn.GELU(approximate="tanh")
    if name == "Hardtanh":
        return nn.Hardtanh(-0.3, 0.7)
    return getattr(nn, name)()


class Case(nn.Module):
    """layer -> activation, or layer + other -> relu; then what its result goes to."""

    def __init__(self, layer: nn.Module, act: nn.Module, add: bool, head: nn.Module | None) -> None:
        super().__init__()
        self.layer, self.act, self.add, self.head = layer, act, add, head
        self.shortcut = nn.Identity()

    def forward(self, x: Tensor, *other: Tensor) -> Tensor:
        y = self.layer(x)
        y = y + other[0] if self.add else y
        y = self.act(y)
        return self.head(y) if self.head is not None else y


@dataclass(frozen=True)
class OpCase:
    """A model with its inputs.

    Attributes:
        label: What it is, for messages.
        model: In eval mode.
        inputs: Positional arguments, to calibrate and to compare on.
        reduce_range: Whether activations get 7 bits.
        free_batch: Whether the batch is to stay free.
    """

    label: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    reduce_range: bool
    free_batch: bool


def op_case(seed: int) -> OpCase:
    """Return case number ``seed``; equal numbers give equal cases."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    make = _convolution if draw.random() < 0.65 else _linear
    label, model, inputs = make(draw)
    weight = next(model.layer.parameters())
    batched = inputs[0].dim() >= max(2, weight.dim()) and len(inputs[0]) > 1
    return OpCase(
        f"{seed}: {label}",
        model.eval(),
        inputs,
        reduce_range=draw.random() < 0.2,
        free_batch=batched and draw.random() < 0.25,
    )


def _convolution(draw: random.Random) -> tuple[str, Case, tuple[Tensor, ...]]:
    rank = draw.choice((1, 2, 2, 2, 3))
    groups = draw.choice((1, 1, 1, 2, 3, 8))
    depthwise = draw.random() < 0.2
    channels = groups * draw.choice((1, 2, 3, 4, 5, 8, 16, 17))
    groups = channels if depthwise else groups
    out = groups * draw.choice((1, 2) if depthwise else (1, 2, 3, 4, 7, 8, 16, 19))
    kernel = draw.choice((1, 1, 2, 3, 3, 5) if rank < 3 else (1, 3))
    stride, dilation = draw.choice((1, 1, 2)), draw.choice((1, 1, 2))
    size = dilation * (kernel - 1) + draw.randint(1, 9 if rank < 3 else 4)
    padding = draw.choice((0, 0, kernel // 2, kernel))
    layer = CONVS[rank](
        channels, out, kernel, stride, padding, dilation, groups, bias=draw.random() < 0.7
    )
    batch = draw.choice((1, 1, 2, 3))
    shape = (batch, channels, *[size] * rank)
    unbatched = draw.random() < 0.1
    x = _activations(draw, *(shape[1:] if unbatched else shape))
    if rank == 2 and draw.random() < 0.3 and not unbatched:
        x = x.contiguous(memory_format=torch.channels_last)
    add = rank == 2 and not unbatched and draw.random() < 0.35
    act = draw.choice((None, "ReLU")) if add else draw.choice(CONV_ACTIVATIONS)
    head = draw.choice((None, CONVS[rank](out, 4, 1)))
    model = Case(layer, activation(act), add, head)
    others = (_activations(draw, *layer(x).shape),) if add else ()
    name = f"{layer} on {tuple(x.shape)} -> {'add ' if add else ''}{act} -> {head}"
    return name, model, (x, *others)


def _linear(draw: random.Random) -> tuple[str, Case, tuple[Tensor, ...]]:
    k, n = draw.choice((1, 3, 4, 7, 16, 31, 64, 65, 130)), draw.choice((1, 2, 5, 8, 17, 32, 70))
    layer = nn.Linear(k, n, bias=draw.random() < 0.7)
    leading = draw.choice(((), (1,), (5,), (2, 3), (1, 7), (2, 1, 4), (33,)))
    x = _activations(draw, *leading, k)
    add = draw.random() < 0.35
    act = draw.choice((None, "ReLU")) if add else draw.choice(LINEAR_ACTIVATIONS)
    head = draw.choice((None, nn.Linear(n, 4)))
    others = (_activations(draw, *leading, n),) if add else ()
    name = f"{layer} on {tuple(x.shape)} -> {'add ' if add else ''}{act} -> {head}"
    return name, Case(layer, activation(act), add, head), (x, *others)


def _activations(draw: random.Random, *shape: int) -> Tensor:
    """Return values whose zero point is at an end, in the middle or somewhere."""
    x = torch.randn(shape)
    shift = draw.choice((-6.0, 0.0, 0.3, 2.0, 6.0))
    return (x.relu() if draw.random() < 0.3 else x) + shift
