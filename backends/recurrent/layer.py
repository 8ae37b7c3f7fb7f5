"""One layer of a recurrent net, in one direction, with int8 weights: definition and kernels.

Every row of activations (of the input, and of the state at each step) is rounded to -127..127::

    s = max |a| / 127,   q = round(a / s),   a w' = s * s_w * sum(q q_w)

``s_w`` is the scale of an output channel. Gates and states are float32, in torch's order of gates.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from quantfx.backends.recurrent.library import Place, runtime

KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
MOST = 127


@dataclass(frozen=True)
class Weight:
    """int8 ``(channels, width)`` in -127..127, a float32 scale for each channel, a bias or none."""

    integers: Tensor
    scales: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Layer:
    """The weights of one layer in one direction.

    Attributes:
        kind: One of ``KINDS``.
        of_input: Gates of the input.
        of_state: Gates of the state.
        projection: Projection of the state to the output, for an LSTM; None if they are the same.
        reverse: Whether it runs from the last step to the first.
    """

    kind: str
    of_input: Weight
    of_state: Weight
    projection: Weight | None = None
    reverse: bool = False

    @property
    def hidden(self) -> int:
        """Number of units of each gate."""
        return len(self.of_input.integers) // GATES[self.kind]


@dataclass(frozen=True)
class State:
    """The state: ``h`` is ``(batch, width)``; ``c``, for an LSTM only, ``(batch, hidden)``."""

    h: Tensor
    c: Tensor | None = None


def run_layer(layer: Layer, x: Tensor, state: State, out: Tensor) -> State:
    """Write the output of each step to ``out``; return the last state.

    Args:
        layer: The weights.
        x: ``(steps, batch, width)``, float32.
        state: The first state.
        out: ``(steps, batch, width of h)``, float32, with contiguous rows.
    """
    library = runtime().library
    if library is None:
        return reference(layer, x, state, out)
    x = x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
    h = state.h.contiguous().clone()
    c = None if state.c is None else state.c.contiguous().clone()
    sizes = [x.shape[0], x.shape[1], x.shape[2], layer.hidden, h.shape[-1]]
    weights = (layer.of_input, layer.of_state, layer.projection)
    library.qfx_recurrent(
        KINDS.index(layer.kind),
        (ctypes.c_int64 * len(sizes))(*sizes),
        x.data_ptr(),
        Place(*x.stride()[:2]),
        _pointers([each.integers if each else None for each in weights]),
        _pointers([each.scales if each else None for each in weights]),
        _pointers([each.bias if each else None for each in weights]),
        layer.reverse,
        out.data_ptr(),
        Place(*out.stride()[:2]),
        h.data_ptr(),
        0 if c is None else c.data_ptr(),
        torch.get_num_threads(),
    )
    return State(h, c)


def _pointers(tensors: list[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    addresses = (0 if each is None else each.data_ptr() for each in tensors)
    return (ctypes.c_void_p * len(tensors))(*addresses)


def reference(layer: Layer, x: Tensor, state: State, out: Tensor) -> State:
    """Do in torch what ``run_layer`` does, step by step."""
    of_input = product(x, layer.of_input)
    steps = range(len(x))
    for step in reversed(steps) if layer.reverse else steps:
        gates = product(state.h, layer.of_state)
        state = _advance(layer.kind, of_input[step], gates, state)
        if layer.projection is not None:
            state = State(product(state.h, layer.projection), state.c)
        out[step] = state.h
    return state


def product(a: Tensor, weight: Weight) -> Tensor:
    """Return ``a w' + bias`` of rounded rows; sums of integers are exact in float64."""
    scale = a.abs().amax(-1, keepdim=True) / MOST
    scale = torch.where(scale > 0, scale, 1.0)
    rounded = (a / scale).round().clamp(-MOST, MOST)
    sums = (rounded.double() @ weight.integers.double().T).float()
    value = sums * (scale * weight.scales)
    return value if weight.bias is None else value + weight.bias


def _advance(kind: str, x: Tensor, h: Tensor, state: State) -> State:
    """Return the state after one step, from the gates of its input and of its state."""
    if kind == "lstm":
        assert state.c is not None, "an LSTM has cells"
        i, f, g, o = (x + h).chunk(4, -1)
        cell = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        return State(o.sigmoid() * cell.tanh(), cell)
    if kind == "gru":
        (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), h.chunk(3, -1)
        fresh = (xn + (xr + hr).sigmoid() * hn).tanh()
        return State(fresh + (xz + hz).sigmoid() * (state.h - fresh))
    return State((x + h).tanh() if kind == "rnn_tanh" else (x + h).relu())
