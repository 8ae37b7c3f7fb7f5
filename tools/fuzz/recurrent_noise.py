"""Recurrent layers on rounded rows: what 8 bits cost them.

The kernel rounds the input and, at each step, the state. So a layer runs step by step here, by
torch's own operator. Unlike the kernel, a GRU keeps a part of the rounded state instead of the
exact one, and what a projection reads is not rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.patterns.schema import argument_value, arguments, overload, resolve_op

Round = Callable[[Tensor], Tensor]

LAYERS = tuple(resolve_op(f"aten.{kind}.input") for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"))
CELLS = tuple(
    resolve_op(f"aten.{kind}_cell.default") for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
)


def is_recurrent(node: Node) -> bool:
    """Whether ``node`` calls a recurrent layer or a cell."""
    return node.target in (*LAYERS, *CELLS)


def weights_of(node: Node) -> list[Node]:
    """Return the weights and biases of a recurrent layer or a cell."""
    if node.target in LAYERS:
        return list(argument_value(node, "params"))
    return [argument_value(node, name) for name in ("w_ih", "w_hh")]


def run_rounded(node: Node, args: Any, kwargs: Any, rounded: Round) -> Any:
    """Run a recurrent layer or a cell with the rows of activations and weights rounded.

    Args:
        node: The call.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        rounded: Rounds each row.
    """
    target = overload(node)
    given = {name: each.default for name, each in arguments(target).items()}
    given |= dict(zip(arguments(target), args, strict=False)) | kwargs
    if target in LAYERS:
        params = [rounded(each) if each.dim() > 1 else each for each in given["params"]]
        return _run_layers(target, given | {"params": params}, rounded)
    h, *cells = _list(given["hx"])
    given |= {name: rounded(given[name]) for name in ("input", "w_ih", "w_hh")}
    return target(**given | {"hx": _states(target, [rounded(h), *cells])})


def _list(states: Any) -> list[Tensor]:
    return [states] if isinstance(states, Tensor) else list(states)


def _states(target: Any, states: list[Tensor]) -> Any:
    return states if "lstm" in str(target) else states[0]


def _run_layers(target: Any, given: dict[str, Any], rounded: Round) -> tuple[Tensor, ...]:
    x = given["input"].transpose(0, 1) if given["batch_first"] else given["input"]
    directions, layers = 2 if given["bidirectional"] else 1, given["num_layers"]
    states = _list(given["hx"])
    size = len(given["params"]) // (layers * directions)
    ends: list[list[Tensor]] = []
    for layer in range(layers):
        outs: list[Tensor] = []
        for direction in range(directions):
            at = layer * directions + direction
            params = given["params"][at * size : (at + 1) * size]
            first = [each[at : at + 1] for each in states]
            seen = x.flip(0) if direction else x
            out, end = _run_layer(target, seen, first, params, given["has_biases"], rounded)
            outs.append(out.flip(0) if direction else out)
            ends.append(end)
        x = torch.cat(outs, -1)
    made = x.transpose(0, 1) if given["batch_first"] else x
    return (made, *(torch.cat(each) for each in zip(*ends, strict=True)))


def _run_layer(
    target: Any, x: Tensor, states: list[Tensor], params: Any, has_biases: bool, rounded: Round
) -> tuple[Tensor, list[Tensor]]:
    """Return the output of each step, and the last states."""
    outs: list[Tensor] = []
    for step in torch.split(rounded(x), 1):
        hx = _states(target, [rounded(states[0]), *states[1:]])
        out, *states = target(step, hx, params, has_biases, 1, 0.0, False, False, False)
        outs.append(out)
    return torch.cat(outs), states
