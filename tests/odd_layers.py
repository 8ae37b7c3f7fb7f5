"""Random layers with weights, and what follows them, on rare shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.tools.doctor.template_examples import Call, First, Lookup
from tests.odd_tensors import Draw, Made, any_rank, broadcast, image, laid_out, values

_CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def conv(rank: int) -> Callable[[Draw], Made]:
    def make(draw: Draw) -> Made:
        groups = draw.choice((1, 1, 2, 4))
        inputs, outputs = groups * draw.choice((1, 2, 3)), groups * draw.choice((1, 2, 3))
        conv = _CONVS[rank](
            inputs,
            outputs,
            [draw.choice((1, 2, 3)) for _ in range(rank)],
            stride=[draw.choice((1, 1, 2, 3)) for _ in range(rank)],
            padding=[draw.choice((0, 1, 2)) for _ in range(rank)],
            dilation=draw.choice((1, 1, 2)),
            groups=groups,
            bias=draw.random() < 0.7,
            padding_mode=draw.choice(("zeros", "zeros", "zeros", "circular", "replicate")),
        )
        return _followed(draw, conv), (image(draw, rank, inputs),)

    return make


def conv_transpose(rank: int) -> Callable[[Draw], Made]:
    def make(draw: Draw) -> Made:
        groups = draw.choice((1, 1, 2, 4))
        inputs, outputs = groups * draw.choice((1, 2, 3)), groups * draw.choice((1, 2, 3))
        conv = _TRANSPOSED[rank](
            inputs,
            outputs,
            [draw.choice((1, 2, 3)) for _ in range(rank)],
            stride=[draw.choice((1, 2, 3)) for _ in range(rank)],
            padding=draw.choice((0, 0, 1)),
            groups=groups,
            bias=draw.random() < 0.7,
            dilation=draw.choice((1, 1, 2)),
        )
        return _followed(draw, conv), (image(draw, rank, inputs),)

    return make


def _followed(draw: Draw, layer: nn.Module) -> nn.Module:
    behind: list[Callable[[], nn.Module]] = [
        nn.Identity,
        nn.Identity,
        nn.ReLU,
        nn.ReLU6,
        nn.Hardswish,
        nn.SiLU,
        nn.GELU,
        nn.Tanh,
        nn.LeakyReLU,
        lambda: Call(lambda x: x + x),
        lambda: Call(lambda x: x * x),
        lambda: Call(lambda x: x.flatten()),
        lambda: Call(lambda x: x.sum(-1, keepdim=True) + x),
    ]
    return nn.Sequential(layer, draw.choice(behind)())


def linear(draw: Draw) -> Made:
    inputs, outputs = draw.choice((1, 3, 8, 17)), draw.choice((1, 4, 10))
    x = any_rank(draw)
    x = values(draw, *x.shape[:4], inputs)
    return _followed(draw, nn.Linear(inputs, outputs, bias=draw.random() < 0.7)), (x,)


class Shortcut(nn.Module):
    """A layer, a sum with what broadcasts against it, and an activation or none."""

    def __init__(self, layer: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.function(self.layer(x), other)


_SUMS: tuple[Callable[..., Tensor], ...] = (
    lambda y, other: y + other,
    lambda y, other: other + y,
    lambda y, other: (y + other).relu(),
    lambda y, other: y + other.relu(),
    lambda y, other: (y + other.abs()).relu(),
    lambda y, other: torch.add(y, other, alpha=2),
    lambda y, other: y * other,
)


def layer_sum(layers: Callable[[Draw], Made]) -> Callable[[Draw], Made]:
    def make(draw: Draw) -> Made:
        sequence, (x,) = layers(draw)
        assert isinstance(sequence, nn.Sequential)
        layer = sequence[0]
        other = values(draw, *broadcast(draw, tuple(layer(x).shape)))
        return Shortcut(layer, draw.choice(_SUMS)), (x, other)

    return make


def rnn(layer: Callable[..., nn.Module]) -> Callable[[Draw], Made]:
    def make(draw: Draw) -> Made:
        inputs = draw.choice((1, 3, 8))
        first = draw.random() < 0.5
        made = layer(
            inputs,
            draw.choice((1, 5, 8)),
            draw.choice((1, 2)),
            bias=draw.random() < 0.8,
            batch_first=first,
            bidirectional=draw.random() < 0.4,
        )
        batch = draw.choice(([], [1], [2], [3], [0]))
        steps = [draw.choice((1, 2, 5))]
        x = values(draw, *(batch + steps if first else steps + batch), inputs)
        return First(made), (x,)

    return make


class Cell(nn.Module):
    """A recurrent cell, of whose states the first is read."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        made: Any = self.cell(x)
        state: Tensor = made[0] if isinstance(made, tuple) else made
        return state


def cell(draw: Draw) -> Made:
    cells: tuple[Callable[..., nn.Module], ...] = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
    inputs = draw.choice((1, 3, 8))
    cell = draw.choice(cells)(inputs, draw.choice((1, 5)), bias=draw.random() < 0.8)
    return Cell(cell), (values(draw, *draw.choice(([], [0], [1], [3])), inputs),)


def table(draw: Draw) -> Made:
    table = nn.Embedding(9, draw.choice((1, 2, 3, 8)), padding_idx=draw.choice((None, 0)))
    sizes = [draw.choice((1, 2, 3)) for _ in range(draw.randint(0, 4))]
    if sizes and draw.random() < 0.1:
        sizes[0] = 0
    indices = torch.randint(0, 9, sizes, dtype=draw.choice((torch.int64, torch.int32)))
    behind = draw.choice((nn.Identity(), nn.Linear(table.embedding_dim, 3)))
    return nn.Sequential(table, behind), (laid_out(draw, indices) % 9,)


def bag(draw: Draw) -> Made:
    mode = draw.choice(("sum", "sum", "mean", "max"))
    bag = nn.EmbeddingBag(20, draw.choice((1, 3, 8)), mode=mode)
    return Lookup(bag), (values(draw, draw.choice((1, 3)), draw.choice((1, 4))),)
