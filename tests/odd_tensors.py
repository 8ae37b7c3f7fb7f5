"""Tensors of rare shapes and layouts, drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

Draw = random.Random
Made = tuple[nn.Module, tuple[Tensor, ...]]


def laid_out(draw: Draw, x: Tensor) -> Tensor:
    """Return ``x`` with other strides, or as it is."""
    if not x.dim() or draw.random() < 0.35:
        return x
    ways: list[Callable[[], Tensor]] = [
        lambda: x.transpose(0, -1).contiguous().transpose(0, -1),
        lambda: torch.stack([x, x + 1], -1)[..., 0],
        lambda: torch.cat([x, x])[x.shape[0] :],
        lambda: x[:1].expand(x.shape) if x.shape[0] else x,
        lambda: x.permute(*range(1, x.dim()), 0).contiguous().permute(-1, *range(x.dim() - 1)),
    ]
    if x.dim() in (4, 5):
        last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
        ways += [lambda: x.contiguous(memory_format=last)] * 3
    return draw.choice(ways)()


def values(draw: Draw, *shape: int) -> Tensor:
    return laid_out(draw, torch.randn(shape) + draw.choice((0.0, 0.0, 1.5, -2.0)))


def sizes(draw: Draw, rank: int) -> list[int]:
    return [draw.choice((1, 2, 3, 5, 7, 8, 13)) for _ in range(rank)]


def batch(draw: Draw) -> list[int]:
    return draw.choice(([], [0], [1], [2], [2], [3], [3]))


def image(draw: Draw, rank: int, channels: int = 4) -> Tensor:
    return values(draw, *batch(draw), channels, *sizes(draw, rank))


def any_rank(draw: Draw, least: int = 0) -> Tensor:
    """Return a tensor of any rank, with a size of 0 now and then."""
    sizes = [draw.choice((1, 2, 3, 4, 5)) for _ in range(draw.randint(least, 5))]
    if sizes and draw.random() < 0.08:
        sizes[draw.randrange(len(sizes))] = 0
    return values(draw, *sizes)


def broadcast(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that broadcasts against ``shape``; it itself, mostly."""
    if draw.random() < 0.5:
        return shape
    sizes = [1 if draw.random() < 0.4 else size for size in shape]
    return tuple(sizes[draw.randint(0, len(sizes)) if draw.random() < 0.4 else 0 :])
