"""Keep the number of steps of recurrent layers free in torch.export.

torch computes ``aten.lstm.input`` and its kin on fake tensors step by step, which fixes the number
of steps, although the graph holds one node for all of them. Here the model calls operators of ours
in their place, whose results have shapes and nothing else; the graph gets torch's operators back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.own_operators import define
from quantfx.patterns.schema import schema_text

_KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_OPERATORS: dict[str, OpOverload[..., Any]] = {
    kind: getattr(torch.ops.aten, kind).input for kind in _KINDS
}
_KIND_OF: dict[Callable[..., Any], str] = {
    **{getattr(torch, kind): kind for kind in _KINDS},
    **{operator: kind for kind, operator in _OPERATORS.items()},
}


@lru_cache(maxsize=1)
def _ours() -> dict[str, OpOverload[..., Any]]:
    """Return the operators of ours, which have the names of torch's, and so will their nodes."""
    return {kind: _define(kind) for kind in _KINDS}


def _define(kind: str) -> OpOverload[..., Any]:
    theirs = _OPERATORS[kind]
    schema = schema_text(theirs).replace(f"aten::{kind}.input", kind)
    return define(schema, theirs, _fake, key="CompositeExplicitAutograd")


def _fake(
    x: Tensor,
    hx: Tensor | list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    states = [hx] if isinstance(hx, Tensor) else hx
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    batched = batch_first and x.dim() == 3
    made = _laid_out(x, [*x.shape[:-1], width], batched)
    return made, *(each.new_empty(each.shape) for each in states)


def _laid_out(x: Tensor, shape: list[int], batch_first: bool) -> Tensor:
    """Return the result in torch's layout, steps first, which it has for batches first as well."""
    if not batch_first:
        return x.new_empty(shape)
    batch, steps, width = shape
    return x.new_empty(steps, batch, width).transpose(0, 1)


class AnyLength(TorchFunctionMode):
    """Calls the operators of ours for tensors with free sizes.

    Dynamo looks into this for the branches of ``torch.cond``, so operators are defined before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ours = _ours()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run ``func``, or what stands for it."""
        if func in _KIND_OF and _is_free(args):
            func = self._ours[_KIND_OF[func]]
        return func(*args, **(kwargs or {}))


def _is_free(args: Sequence[Any]) -> bool:
    """Whether these are the arguments for a sequence, not for a packed one, of a free size."""
    return (
        len(args) > 2
        and isinstance(args[2], (list, tuple))
        and any(isinstance(size, torch.SymInt) for size in args[0].shape)
    )


def restore_operators(module: GraphModule) -> None:
    """Let ``module`` call torch's own operators again."""
    for kind, ours in _ours().items():
        for _, each in all_graphs(module):
            for node in each.graph.find_nodes(op="call_function", target=ours):
                node.target = _OPERATORS[kind]
                each.recompile()
