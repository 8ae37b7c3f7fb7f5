"""The operators ``quantfx::recurrent`` and ``quantfx::recurrent_cell``.

The first computes all layers of a recurrent net, in both directions.

It takes a sequence ``(steps, batch, width)``, or batch first, or without a batch; first states
``(layers * directions, batch, width)``; and for each layer and direction the int8 weights ``w_ih``,
``w_hh`` and, for a projected LSTM, ``w_hr``, their scales, and two biases or none. It returns what
torch's operator returns: the sequence of the last layer, and the last states. A cell takes one
step, ``(batch, width)`` or without a batch, and returns the next state. All activations are
float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from quantfx.backends.recurrent.layer import GATES, Layer, State, Weight, run_layers
from quantfx.passes.graph.own_operators import define

_TENSORS = "Tensor x, Tensor[] hx, Tensor[] weights, Tensor[] scales, Tensor[] biases, str kind"
_SEQUENCE = f"recurrent({_TENSORS}, int layers, bool bidirectional, bool batch_first) -> Tensor[]"
_CELL = f"recurrent_cell({_TENSORS}) -> Tensor[]"


class Operators(NamedTuple):
    """The operators of a sequence and of one step."""

    sequence: OpOverload[..., Any]
    cell: OpOverload[..., Any]


@lru_cache(maxsize=1)
def operators() -> Operators:
    """Define the operators, once per process, and return them."""
    return Operators(define(_SEQUENCE, _run, _fake), define(_CELL, _run_cell, _fake_cell))


def _run(
    x: Tensor,
    hx: list[Tensor],
    weights: list[Tensor],
    scales: list[Tensor],
    biases: list[Tensor],
    kind: str,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> list[Tensor]:
    directions = 2 if bidirectional else 1
    batched = x.dim() == 3
    x, hx = x.float(), [each.float() for each in hx]  # autocast may have narrowed them
    if not batched:
        x, hx = x.unsqueeze(1), [each.unsqueeze(1) for each in hx]
    elif batch_first:
        x = x.transpose(0, 1)
    count = layers * directions
    made = [
        _layer(at, count, weights, scales, biases, kind, reverse=bidirectional and at % 2 == 1)
        for at in range(count)
    ]
    first = [State(hx[0][at], hx[1][at] if kind == "lstm" else None) for at in range(count)]
    width = directions * hx[0].shape[-1]
    outs = [_empty(x, width, batch_first and batched and at == layers - 1) for at in range(layers)]
    ends = run_layers(made, x, first, outs)
    x = outs[-1]
    states = [torch.stack([end.h for end in ends])]
    if kind == "lstm":
        states.append(torch.stack([end.c for end in ends if end.c is not None]))
    if not batched:
        return [x.squeeze(1), *(each.squeeze(1) for each in states)]
    return [x.transpose(0, 1) if batch_first else x, *states]


def _run_cell(
    x: Tensor,
    hx: list[Tensor],
    weights: list[Tensor],
    scales: list[Tensor],
    biases: list[Tensor],
    kind: str,
) -> list[Tensor]:
    added = (0,) if x.dim() == 2 else (0, 1)
    single = x[None] if x.dim() == 2 else x[None, None]
    first = [each[None] if each.dim() == 2 else each[None, None] for each in hx]
    _, *states = _run(single, first, weights, scales, biases, kind, 1, False, False)
    return [each.squeeze(added) for each in states]


def _empty(x: Tensor, width: int, batch_first: bool) -> Tensor:
    """Return ``(steps, batch, width)``, laid out like the result of all layers."""
    steps, batch = x.shape[:2]
    if batch_first:
        return x.new_empty(batch, steps, width).transpose(0, 1)
    return x.new_empty(steps, batch, width)


def _layer(
    at: int,
    count: int,
    weights: list[Tensor],
    scales: list[Tensor],
    biases: list[Tensor],
    kind: str,
    *,
    reverse: bool,
) -> Layer:
    """Return number ``at`` of ``count`` layers and directions."""
    size = len(weights) // count
    own = [None, None, None] if not biases else [*biases[2 * at : 2 * at + 2], None]
    first, second, *rest = (
        Weight(weights[at * size + k], scales[at * size + k], own[k]) for k in range(size)
    )
    return Layer(kind, first, second, rest[0] if rest else None, reverse)


def _fake(
    x: Tensor,
    hx: list[Tensor],
    weights: list[Tensor],
    scales: list[Tensor],
    biases: list[Tensor],
    kind: str,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> list[Tensor]:
    directions = 2 if bidirectional else 1
    x = x.new_empty(x.shape, dtype=torch.float32)
    shape = [*x.shape[:-1], directions * hx[0].shape[-1]]
    batch = [x.shape[0 if batch_first else 1]] if x.dim() == 3 else []
    hidden = weights[0].shape[0] // GATES[kind]
    states = [x.new_empty([layers * directions, *batch, hx[0].shape[-1]])]
    if kind == "lstm":
        states.append(x.new_empty([layers * directions, *batch, hidden]))
    return [x.new_empty(shape), *states]


def _fake_cell(x: Tensor, hx: list[Tensor], *_: object) -> list[Tensor]:
    return [each.new_empty(each.shape, dtype=torch.float32) for each in hx]
