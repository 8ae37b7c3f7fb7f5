"""Random operators without quantized weights, on rare shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.doctor.template_examples import Call
from tests.odd_tensors import Draw, Made, any_rank, broadcast, image, sizes, values


def matmul(draw: Draw) -> Made:
    n, k, m = (draw.choice((1, 3, 4, 8)) for _ in range(3))
    left = draw.choice(((n, k), (2, n, k), (2, 3, n, k), (1, 3, n, k), (k,), (0, n, k)))
    right = draw.choice(((k, m), (2, k, m), (2, 3, k, m), (2, 1, k, m), (k,)))
    return Call(torch.matmul), (values(draw, *left), values(draw, *right))


def binary(draw: Draw) -> Made:
    x = any_rank(draw)
    functions: tuple[Callable[..., Tensor], ...] = (
        torch.add,
        torch.mul,
        torch.sub,
        lambda x, y: (x + y).relu(),
        lambda x, y: (x * y).relu(),
        lambda x, y: torch.add(x, y, alpha=-1),
    )
    if draw.random() < 0.25:
        function = draw.choice(functions)
        return Call(lambda x: function(x, x)), (x,)
    y = values(draw, *broadcast(draw, tuple(x.shape)))
    pair = (x, y) if draw.random() < 0.5 else (y, x)
    return Call(draw.choice(functions)), pair


def scalar(draw: Draw) -> Made:
    number = draw.choice((-2.5, -1, 0, 0.3, 1, 4, 1e-3, True))
    functions: tuple[Callable[..., Tensor], ...] = (
        lambda x: x + number,
        lambda x: number * x,
        lambda x: (x + number).relu(),
        lambda x: (x * number).relu(),
        lambda x: number - x,
        lambda x: torch.add(x, number, alpha=3),
        lambda x: x / 3,
    )
    return Call(draw.choice(functions)), (any_rank(draw),)


def cat(draw: Draw) -> Made:
    x = any_rank(draw, least=1)
    axis = draw.randint(-x.dim(), x.dim() - 1)
    shapes: list[list[int]] = []
    for _ in range(draw.randint(0, 2)):
        shapes.append(list(x.shape))
        shapes[-1][axis] = draw.choice((0, 1, 2, 3))
    others = [values(draw, *shape) for shape in shapes]
    functions: tuple[Callable[..., Tensor], ...] = (
        lambda *xs: torch.cat(xs, axis),
        lambda *xs: torch.cat([*xs, xs[0]], axis),
        lambda *xs: torch.cat([*xs, xs[0].new_empty(0)], axis) if xs[0].dim() == 1 else xs[0],
        lambda *xs: torch.stack([xs[0], xs[0]], axis),
        lambda *xs: torch.stack([xs[0], xs[0] + 1], -1),
        lambda *xs: torch.cat([xs[0].relu(), *xs], axis),
    )
    return Call(draw.choice(functions)), (x, *others)


def max_pool(draw: Draw, rank: int) -> nn.Module:
    pool: Any = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[rank]
    kernel = [draw.choice((1, 2, 3)) for _ in range(rank)]
    made: nn.Module = pool(
        kernel,
        [draw.choice((1, 2, 3)) for _ in range(rank)],
        [draw.choice((0, 0, each // 2)) for each in kernel],
        draw.choice((1, 1, 2)),
        ceil_mode=draw.random() < 0.5,
    )
    return made


def avg_pool(draw: Draw, rank: int) -> nn.Module:
    pool: Any = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[rank]
    kernel = [draw.choice((1, 2, 3)) for _ in range(rank)]
    stride = [draw.choice((1, 2, 3)) for _ in range(rank)]
    padding = [draw.choice((0, 0, each // 2)) for each in kernel]
    last = {} if rank == 1 else {"divisor_override": draw.choice((None, None, None, 5))}
    made: nn.Module = pool(
        kernel, stride, padding, draw.random() < 0.5, draw.random() < 0.5, **last
    )
    return made


def adaptive(draw: Draw, rank: int) -> nn.Module:
    pools: Any = {
        1: (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
        2: (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
        3: (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
    }[rank]
    size: Any = draw.choice((1, 2, 3, 9))
    if rank > 1 and draw.random() < 0.4:
        size = tuple(draw.choice((1, 2, None)) for _ in range(rank))
    made: nn.Module = draw.choice((pools[0], pools[0], pools[1]))(size)
    return made


def on_images(*makers: Callable[[Draw, int], nn.Module]) -> Callable[[Draw], Made]:
    """Return what makes a model of one of ``makers``, given the rank, of four channels."""

    def make(draw: Draw) -> Made:
        rank = draw.choice((1, 2, 2, 3))
        return draw.choice(makers)(draw, rank), (image(draw, rank),)

    return make


def large_pool(draw: Draw) -> Made:
    """A pool of more positions than a byte counts."""
    rank = draw.choice((2, 3))
    sizes = draw.choice(((12, 12), (1, 130), (17, 17)) if rank == 2 else ((4, 6, 7), (1, 1, 130)))
    pool = draw.choice((max_pool, avg_pool, adaptive))(draw, rank)
    return pool, (values(draw, 2, 4, *sizes),)


def norm(draw: Draw) -> Made:
    rank = draw.choice((0, 1, 2, 3))
    x = values(draw, *draw.choice(([0], [1], [3])), 4, *sizes(draw, rank))
    norms: Any = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    norm = norms[rank](4, affine=draw.random() < 0.7)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.3, 3)
    return draw.choice((nn.Sequential(norm), nn.Sequential(norm, nn.ReLU()))), (x,)


def layer_norm(draw: Draw) -> Made:
    x = any_rank(draw, least=1)
    shape = x.shape[draw.randint(0, x.dim() - 1) :]
    return nn.LayerNorm(shape, elementwise_affine=draw.random() < 0.7), (x,)


def group_norm(draw: Draw, _: int) -> nn.Module:
    return nn.GroupNorm(draw.choice((1, 2, 4)), 4, affine=draw.random() < 0.7)


def instance_norm(draw: Draw, rank: int) -> nn.Module:
    norms: Any = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
    made: nn.Module = norms[rank](4, affine=draw.random() < 0.5)
    return made


def activation(draw: Draw) -> Made:
    x = any_rank(draw)
    modules: tuple[Callable[[], nn.Module], ...] = (
        nn.ELU,
        nn.LeakyReLU,
        nn.Hardswish,
        nn.Sigmoid,
        nn.Hardsigmoid,
        nn.Tanh,
        nn.ReLU,
        nn.ReLU6,
        nn.SiLU,
        nn.GELU,
        lambda: nn.Hardtanh(-0.5, 0.8),
        lambda: nn.Hardtanh(0.5, 2),
        lambda: Call(lambda x: x.clamp(min=-0.3)),
        lambda: Call(lambda x: x.clamp(max=0.3)),
        lambda: Call(lambda x: x.clamp(1.0, 3.0)),
        lambda: nn.PReLU(x.shape[1] if x.dim() > 1 and draw.random() < 0.5 else 1),
        lambda: nn.Softmax(draw.randint(-x.dim(), x.dim() - 1)),
    )
    return draw.choice(modules)(), (x,)


def mean(draw: Draw) -> Made:
    x = any_rank(draw, least=1)
    axes = draw.sample(range(-x.dim(), 0), draw.randint(1, x.dim()))
    keep = draw.random() < 0.5
    return draw.choice((Call(lambda x: x.mean(axes, keep)), Call(lambda x: x.mean()))), (x,)


def layout(draw: Draw) -> Made:
    x = any_rank(draw, least=1)
    axis, other = (draw.randint(-x.dim(), x.dim() - 1) for _ in range(2))
    first, last = sorted((axis % x.dim(), other % x.dim()))
    order = draw.sample(range(x.dim()), x.dim())
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: x.flatten(first, last),
        lambda x: x.flatten(),
        lambda x: x.reshape(-1) if x.numel() else x.reshape(0),
        lambda x: x.reshape(x.shape[0], -1) if x.numel() else x.flatten(),
        lambda x: x.permute(order),
        lambda x: x.permute(order).flatten(first),
        lambda x: x.transpose(axis, other),
        lambda x: x.transpose(axis, other).contiguous(),
        lambda x: x.unsqueeze(axis),
        lambda x: x.squeeze(),
        lambda x: x.squeeze(axis),
        lambda x: x.select(axis, -1),
        lambda x: x.narrow(axis, 0, 1),
        lambda x: x[..., ::2],
        lambda x: x[-1:],
        lambda x: x[..., :0],
        lambda x: x.expand(2, *x.shape),
        lambda x: x.repeat(2, *[1] * (x.dim() - 1)),
        lambda x: x.repeat_interleave(2, axis),
        lambda x: torch.unflatten(x, axis, (1, -1)),
        lambda x: x.flip(axis),
        lambda x: x.chunk(2, axis)[-1],
        lambda x: torch.cat(torch.split(x, 1, axis), other),
    )
    return Call(draw.choice(functions)), (x,)


def interpolate(draw: Draw) -> Made:
    rank = draw.choice((1, 2, 2, 3))
    mode = draw.choice(("nearest", {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]))
    size: Any = draw.choice((1, 3, 9))
    x = image(draw, rank)
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: F.interpolate(x, size=[size] * rank, mode=mode),
        lambda x: F.interpolate(x, scale_factor=2, mode=mode),
        lambda x: F.interpolate(x, scale_factor=1.7, mode=mode),
        lambda x: F.interpolate(x, scale_factor=0.5, mode=mode),
    )
    shuffles: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.pixel_unshuffle(x, 2) if x.shape[-1] % 2 == 0 else x,
        lambda x: F.pad(x, (1, 2)),
    )
    return Call(draw.choice(functions + shuffles)), (x,)
