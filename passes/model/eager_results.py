"""Results of calling a model or graph, in a form to compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.passes.inputs.leaves import Inputs, leaves_in
from quantfx.passes.model.input_copies import copy_inputs

_TOLERANCE = 1e-3
_SEED = 0


def results_of(function: Callable[..., Any], inputs: Inputs) -> list[Any]:
    """Return the leaves of the result for copies of the inputs, with the same random seed."""
    args, kwargs = copy_inputs(*inputs)
    torch.manual_seed(_SEED)
    return leaves_in(function(*args, **kwargs))


def same_results(some: list[Any], others: list[Any]) -> bool:
    """Whether leaves are equal; tensors up to the rounding of other kernels and sum orders."""
    return len(some) == len(others) and all(map(_is_same, some, others))


def is_real(leaf: object) -> bool:
    """Whether a leaf holds real values: false for fake and meta tensors."""
    return not isinstance(leaf, Tensor) or (
        not leaf.is_meta and type(leaf) in (Tensor, nn.Parameter)
    )


def _is_same(one: object, other: object) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and bool(one == other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.isclose(one, other, _TOLERANCE, _TOLERANCE, equal_nan=True).all())
