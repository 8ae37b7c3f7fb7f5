"""Find out whether a model reads the order of dicts among its inputs, or only their keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantfx.passes.inputs.leaves import Inputs, leaves_in, map_leaves
from quantfx.passes.model.eager_results import is_real, results_of, same_results
from quantfx.passes.model.state import restored

_SEED = 0


def order_is_free(model: nn.Module, inputs: Inputs) -> bool:
    """Whether ``model`` gives the same result for dicts with their keys in opposite order.

    If there are such dicts, it is called twice, with values other than the example's, which may be
    equal for several keys.
    """
    turned = _reverse_keys(inputs)
    if turned is None or not all(map(is_real, leaves_in(inputs))):
        return False
    with restored(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        given = map_leaves(_make_other, inputs)
        try:
            return same_results(results_of(model, given), results_of(model, _reverse_keys(given)))
        except Exception:  # the model's own error
            return False


def _reverse_keys(values: Any) -> Any:
    """Return nested values with the keys of dicts in opposite order; None if there are none."""
    found = False

    def turn(value: Any) -> Any:
        nonlocal found
        if type(value) is dict:
            found = found or len(value) > 1
            return {key: turn(value[key]) for key in reversed(value)}
        return type(value)(map(turn, value)) if type(value) in (list, tuple) else value

    args, kwargs = values
    turned = turn(args), {name: turn(value) for name, value in kwargs.items()}
    return turned if found else None


def _make_other(leaf: Any) -> Any:
    """Return the values of ``leaf`` in another order; new values for floating point."""
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_floating_point():
        return torch.rand_like(leaf)
    return leaf.flatten()[torch.randperm(leaf.numel())].view(leaf.shape)
