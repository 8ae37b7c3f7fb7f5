"""One layer of a recurrent net, in one direction, with int8 weights: definition and kernels.

Every row of activations (of the input, and of the state at each step) is rounded to -127..127::

    s = max |a| / 127,   q = round(a / s),   a w' = s * s_w * sum(q q_w)

``s_w`` is the scale of an output channel. Gates and states are float32, in torch's order of gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantfx.backends.recurrent.library import LayerPointers, Sizes, runtime

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


def run_layers(
    layers: Sequence[Layer], x: Tensor, states: Sequence[State], outs: Sequence[Tensor]
) -> list[State]:
    """Write the outputs of each layer; return the last states.

    Args:
        layers: The layers in order, of equal sizes but for the first one's input. Both directions
            of a bidirectional layer stand side by side.
        x: ``(steps, batch, width)``, float32.
        states: The first state of each of ``layers``.
        outs: For each layer ``(steps, batch, directions * width of h)``, float32, with contiguous
            rows. The next layer reads it.
    """
    directions = len(layers) // len(outs)
    width = states[0].h.shape[-1]
    inputs = [x, *outs][: len(outs)]
    library = runtime().library
    read = [each for each in inputs for _ in range(directions)]
    parts = [part for out in outs for part in torch.split(out, width, -1)]
    if library is None:
        return [reference(*each) for each in zip(layers, read, states, parts, strict=True)]
    read = [each if _has_rows(each) else each.contiguous() for each in read]
    ends = [
        State(each.h.contiguous().clone(), None if each.c is None else each.c.contiguous().clone())
        for each in states
    ]
    sizes = Sizes(*x.shape[:2], layers[0].hidden, width, len(outs), directions)
    pointers = [_pointers(*each) for each in zip(layers, read, ends, parts, strict=True)]
    library.qfx_recurrent(
        KINDS.index(layers[0].kind),
        sizes,
        (LayerPointers * len(pointers))(*pointers),
        torch.get_num_threads(),
    )
    return ends


def _has_rows(x: Tensor) -> bool:
    return x.stride(-1) == 1 or x.shape[-1] == 1


def _pointers(layer: Layer, x: Tensor, state: State, out: Tensor) -> LayerPointers:
    weights = [each for each in (layer.of_input, layer.of_state, layer.projection) if each]
    biases = [None if each.bias is None else each.bias.data_ptr() for each in weights[:2]]
    return LayerPointers(
        tuple(each.integers.data_ptr() for each in weights),
        tuple(each.scales.data_ptr() for each in weights),
        tuple(biases),
        x.data_ptr(),
        out.data_ptr(),
        state.h.data_ptr(),
        None if state.c is None else state.c.data_ptr(),
        x.stride()[:2],
        out.stride()[:2],
        x.shape[-1],
        layer.reverse,
    )


def reference(layer: Layer, x: Tensor, state: State, out: Tensor) -> State:
    """Do in torch what ``run_layers`` does, step by step."""
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
