"""The operator ``quantfx::recurrent``: all layers of a recurrent net, in both directions.

It takes a sequence ``(steps, batch, width)``, or batch first, or without a batch; first states
``(layers * directions, batch, width)``; and for each layer and direction the int8 weights ``w_ih``,
``w_hh`` and, of a projected LSTM, ``w_hr``, their scales, and two biases or none. It returns what
torch's operator does: the sequence of the last layer, and the last states.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from quantfx.backends.recurrent.layer import GATES, Layer, State, Weight, run_layer
from quantfx.patterns.schema import resolve_op

_NAME = "recurrent"
_SCHEMA = (
    f"{_NAME}(Tensor x, Tensor[] hx, Tensor[] weights, Tensor[] scales, Tensor[] biases, "
    "str kind, int layers, bool bidirectional, bool batch_first) -> Tensor[]"
)
_LIBRARIES: list[Any] = []


@lru_cache(maxsize=1)
def recurrent_operator() -> OpOverload[..., Any]:
    """Define the operator, once per process, and return it."""
    library: Any = torch.library.Library("quantfx", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch has none
    library.define(_SCHEMA)
    library.impl(_NAME, _run, "CPU")
    torch.library.register_fake(f"quantfx::{_NAME}", _fake, lib=library)
    _LIBRARIES.append(library)  # its operators live as long as it does
    return resolve_op(f"quantfx.{_NAME}.default")


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
    if not batched:
        x, hx = x.unsqueeze(1), [each.unsqueeze(1) for each in hx]
    elif batch_first:
        x = x.transpose(0, 1)
    ends: list[State] = []
    for index in range(layers):
        width = hx[0].shape[-1]
        last = index == layers - 1
        out = _empty(x, directions * width, batch_first and batched and last)
        for direction in range(directions):
            at = index * directions + direction
            layer = _layer(at, layers * directions, weights, scales, biases, kind)
            start = State(hx[0][at], hx[1][at] if kind == "lstm" else None)
            part = out[..., direction * width : (direction + 1) * width]
            ends.append(run_layer(layer if not direction else _reversed(layer), x, start, part))
        x = out
    states = [torch.stack([end.h for end in ends])]
    if kind == "lstm":
        states.append(torch.stack([end.c for end in ends if end.c is not None]))
    if not batched:
        return [x.squeeze(1), *(each.squeeze(1) for each in states)]
    return [x.transpose(0, 1) if batch_first else x, *states]


def _empty(x: Tensor, width: int, batch_first: bool) -> Tensor:
    """Return ``(steps, batch, width)``, laid out as the result of all layers is."""
    steps, batch = x.shape[:2]
    if batch_first:
        return x.new_empty(batch, steps, width).transpose(0, 1)
    return x.new_empty(steps, batch, width)


def _reversed(layer: Layer) -> Layer:
    return Layer(layer.kind, layer.of_input, layer.of_state, layer.projection, reverse=True)


def _layer(
    at: int,
    count: int,
    weights: list[Tensor],
    scales: list[Tensor],
    biases: list[Tensor],
    kind: str,
) -> Layer:
    """Return number ``at`` of ``count`` layers and directions."""
    size = len(weights) // count
    own = [None, None, None] if not biases else [*biases[2 * at : 2 * at + 2], None]
    first, second, *rest = (
        Weight(weights[at * size + k], scales[at * size + k], own[k]) for k in range(size)
    )
    return Layer(kind, first, second, rest[0] if rest else None)


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
    shape = [*x.shape[:-1], directions * hx[0].shape[-1]]
    batch = [x.shape[0 if batch_first else 1]] if x.dim() == 3 else []
    hidden = weights[0].shape[0] // GATES[kind]
    states = [x.new_empty([layers * directions, *batch, hx[0].shape[-1]])]
    if kind == "lstm":
        states.append(x.new_empty([layers * directions, *batch, hidden]))
    return [x.new_empty(shape), *states]
