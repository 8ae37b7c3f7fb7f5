"""Random models of one native kernel each, with what their kernels have to get right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.doctor.template_examples import Call

Draw = random.Random


@dataclass(frozen=True)
class NativeCase:
    """A model and the inputs to calibrate and to compare on."""

    label: str
    model: nn.Module
    inputs: tuple[Tensor, ...]


def native_case(kind: str, seed: int) -> NativeCase:
    """Return case number ``seed`` of a kind of ``KINDS``; equal numbers give equal cases."""
    draw = Draw(f"{kind} {seed}")
    torch.manual_seed(draw.randrange(2**31))
    model, inputs = KINDS[kind](draw)
    return NativeCase(f"{kind} {seed}: {model}", model.eval(), inputs)


class Then(nn.Module):
    """A module, and relu behind it or not."""

    def __init__(self, first: nn.Module, relu: bool) -> None:
        super().__init__()
        self.first, self.relu = first, relu

    def forward(self, *inputs: Tensor) -> Tensor:
        value: Tensor = self.first(*inputs)
        return value.relu() if self.relu else value


def _values(draw: Draw, *shape: int) -> Tensor:
    """Return values of some scale and offset, laid out in either way."""
    values = torch.randn(shape) * draw.choice((0.1, 1.0, 8.0)) + draw.choice((-3.0, 0.0, 0.0, 2.0))
    if len(shape) == 4 and draw.random() < 0.5:
        return values.contiguous(memory_format=torch.channels_last)
    return values


def _volume(draw: Draw, rank: int, channels: int | None = None) -> Tensor:
    sizes = [draw.randint(5, 9) for _ in range(rank)]
    return _values(draw, draw.randint(1, 3), channels or draw.choice((1, 3, 4, 8)), *sizes)


def _some(draw: Draw, choices: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return tuple(draw.choice(choices) for _ in range(rank))


_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def _conv(rank: int) -> Callable[[Draw], Any]:
    def make(draw: Draw) -> Any:
        groups = draw.choice((1, 1, 2, 8))
        inputs = groups * draw.choice((1, 3, 4, 8, 16))
        outputs = groups * draw.choice((1, 4, 7, 8))
        even = draw.random() < 0.9
        conv = _CONVS[rank](
            inputs,
            outputs,
            _some(draw, (1, 2, 3, 5), rank),  # type: ignore[arg-type]
            stride=_some(draw, (1, 2, 3), rank) if even else 1,  # type: ignore[arg-type]
            padding=_some(draw, (0, 1, 2), rank) if even else "same",  # type: ignore[arg-type]
            dilation=draw.choice((1, 1, 2)),
            groups=groups,
            bias=draw.random() < 0.7,
        )
        sizes = [draw.randint(9, 12) for _ in range(rank)]
        return Then(conv, draw.random() < 0.5), (_values(draw, 2, inputs, *sizes),)

    return make


def _conv_transpose(rank: int) -> Callable[[Draw], Any]:
    def make(draw: Draw) -> Any:
        groups = draw.choice((1, 1, 2))
        inputs, outputs = draw.choice(((1, 1), (3, 3), (8, 8), (16, 8), (8, 16), (4, 6), (16, 16)))
        stride = draw.choice((1, 2, 3))
        conv = _TRANSPOSED[rank](
            inputs * groups,
            outputs * groups,
            _some(draw, (1, 2, 2, 3, 4), rank),  # type: ignore[arg-type]
            stride=stride,
            padding=draw.choice((0, 0, 1)),
            output_padding=draw.choice((0, 0, 1)) if stride > 1 else 0,
            groups=groups,
            bias=draw.random() < 0.7,
            dilation=draw.choice((1, 1, 2)),
        )
        sizes = [draw.randint(4, 7) for _ in range(rank)]
        return conv, (_values(draw, 2, inputs * groups, *sizes),)

    return make


def _linear(draw: Draw) -> Any:
    inputs, outputs = draw.choice((1, 3, 8, 17, 64, 200)), draw.choice((1, 4, 10, 32))
    rows = draw.choice(((1,), (6,), (3, 5), (140,)))
    linear = nn.Linear(inputs, outputs, bias=draw.random() < 0.7)
    return Then(linear, draw.random() < 0.5), (_values(draw, *rows, inputs),)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Draw], Any]:
    def make(draw: Draw) -> Any:
        x = _volume(draw, 2)
        shape = tuple(x.shape) if draw.random() < 0.6 else draw.choice(((1, 1, 1, 1), x.shape[-1:]))
        return Then(Call(function), draw.random() < 0.5), (x, _values(draw, *shape))

    return make


def _scalar(draw: Draw) -> Any:
    number: float = draw.choice((-2.5, -1, 0.3, 0.7, 1, 4))
    function = draw.choice((lambda x: x + number, lambda x: x * number))
    return Then(Call(function), draw.random() < 0.5), (_volume(draw, 2),)


def _matmul(draw: Draw) -> Any:
    n, k, m = (draw.choice((1, 4, 9)) for _ in range(3))
    batch = draw.choice(((), (2,)))
    return Call(torch.matmul), (_values(draw, *batch, n, k), _values(draw, *batch, k, m))


def _cat(draw: Draw) -> Any:
    x = _volume(draw, 2)
    parts = tuple(_values(draw, *x.shape) for _ in range(draw.randint(1, 3)))
    axis = draw.choice((0, 1, -1))
    join = draw.choice((torch.cat, torch.stack))
    return Call(lambda *tensors: join(tensors, axis)), (x, *parts)


def _module(*makers: Callable[[Draw, int], nn.Module]) -> Callable[[Draw], Any]:
    """Return what makes a model of one of ``makers``, given the rank, of four channels."""

    def make(draw: Draw) -> Any:
        rank = draw.choice((1, 2, 3))
        return draw.choice(makers)(draw, rank), (_volume(draw, rank, 4),)

    return make


def _images(*makers: Callable[[Draw], Callable[[Tensor], Tensor]]) -> Callable[[Draw], Any]:
    def make(draw: Draw) -> Any:
        return Call(draw.choice(makers)(draw)), (_volume(draw, 2, 4),)

    return make


def _batch_norm(draw: Draw) -> Any:
    rank = draw.choice((2, 3))
    norm = (nn.BatchNorm2d if rank == 2 else nn.BatchNorm3d)(4, affine=draw.random() < 0.8)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 3)
        if norm.affine:
            norm.weight.normal_()
            norm.bias.normal_()
    return Then(norm, draw.random() < 0.5), (_volume(draw, rank, 4),)


def _layer_norm(draw: Draw) -> Any:
    x = _values(draw, 3, 5, 8)
    shape = draw.choice(((8,), (5, 8)))
    return nn.LayerNorm(shape, elementwise_affine=draw.random() < 0.7), (x,)


def _prelu(draw: Draw) -> Any:
    prelu = nn.PReLU(draw.choice((1, 4)))
    with torch.no_grad():
        prelu.weight.uniform_(-1, 2)
    return prelu, (_volume(draw, 2, 4),)


def _average(draw: Draw, rank: int) -> nn.Module:
    pool: Any = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[rank]
    padding = draw.choice((0, 1))
    pooled: nn.Module = pool(draw.choice((2, 3)), draw.choice((1, 2)), padding)
    return pooled


def _adaptive(draw: Draw, rank: int) -> nn.Module:
    pool: Any = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[rank]
    pooled: nn.Module = pool(draw.choice((1, 2, 3)))
    return pooled


def _mean(draw: Draw) -> Callable[[Tensor], Tensor]:
    axes, keep = draw.choice(([2, 3], [1], [-1])), draw.random() < 0.5
    return lambda x: x.mean(axes, keepdim=keep)


def _max_pool(draw: Draw, rank: int) -> nn.Module:
    pool: Any = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[rank]
    pooled: nn.Module = pool(draw.choice((2, 3)), draw.choice((1, 2)), draw.choice((0, 1)))
    return pooled


KINDS: dict[str, Callable[[Draw], Any]] = {
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "conv3d": _conv(3),
    "conv_transpose1d": _conv_transpose(1),
    "conv_transpose2d": _conv_transpose(2),
    "conv_transpose3d": _conv_transpose(3),
    "linear": _linear,
    "add": _binary(torch.add),
    "mul": _binary(torch.mul),
    "scalar": _scalar,
    "matmul": _matmul,
    "cat": _cat,
    "elu": _module(lambda draw, _: nn.ELU(draw.choice((0.5, 1.0, 2.0)))),
    "leaky_relu": _module(lambda draw, _: nn.LeakyReLU(draw.choice((0.01, 0.2)))),
    "hardswish": _module(lambda draw, _: nn.Hardswish()),
    "prelu": _prelu,
    "instance_norm": _module(
        lambda draw, rank: {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[rank](
            4, affine=draw.random() < 0.5
        )
    ),
    "group_norm": _module(
        lambda draw, _: nn.GroupNorm(draw.choice((1, 2, 4)), 4, affine=draw.random() < 0.7)
    ),
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "sigmoid": _module(lambda draw, _: nn.Sigmoid(), lambda draw, _: nn.Hardsigmoid()),
    "tanh": _module(lambda draw, _: nn.Tanh()),
    "softmax": _module(lambda draw, _: nn.Softmax(draw.choice((1, 2, -1)))),
    "average": _module(_average, _adaptive),
    "mean": _images(_mean),
    "max_pool": _module(_max_pool),
    "clamp": _module(
        lambda draw, _: nn.ReLU(),
        lambda draw, _: nn.ReLU6(),
        lambda draw, _: nn.Hardtanh(-0.5, 0.8),
        lambda draw, _: Call(lambda x: x.clamp(-0.3, 2)),
    ),
    "interpolate": _images(
        lambda draw: lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        lambda draw: lambda x: F.interpolate(x, size=(7, 5), mode="nearest"),
        lambda draw: lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda draw: lambda x: F.interpolate(x, size=(12, 4), mode="bilinear", align_corners=True),
    ),
    "layout": _images(
        lambda draw: lambda x: x.flatten(1),
        lambda draw: lambda x: x.transpose(1, 2),
        lambda draw: lambda x: x.permute(0, 2, 3, 1),
        lambda draw: lambda x: x[:, 1:, ::2],
        lambda draw: lambda x: x[:, 0],
        lambda draw: lambda x: x.unsqueeze(1),
        lambda draw: lambda x: x.repeat(1, 2, 1, 1),
        lambda draw: lambda x: torch.repeat_interleave(x, 2, 1),
        lambda draw: lambda x: x[:, :1].expand(-1, 3, -1, -1),
        lambda draw: lambda x: F.pixel_shuffle(x, 2),
        lambda draw: lambda x: x.reshape(x.shape[0], -1, 2),
        lambda draw: lambda x: torch.narrow(x, 1, 1, 2),
        lambda draw: lambda x: x[:, :1].squeeze(1),
    ),
}
