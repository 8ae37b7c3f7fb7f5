"""The leaves of a module's inputs by name, so that a batch compares with what was captured."""

from __future__ import annotations

import inspect
from typing import Any

from torch.fx import GraphModule
from torch.utils import _pytree as pytree

_INPUTS = "quantfx_inputs"


def input_leaves(
    module: GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return ``(path, leaf)`` of every value in the arguments, e.g. ``("x['mask']", tensor)``.

    Raises:
        TypeError: the arguments do not fit the module's signature.
    """
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    return [
        (f"{name}{pytree.keystr(path)}", leaf)
        for name, value in bound.arguments.items()
        for path, leaf in pytree.tree_flatten_with_path(value)[0]
    ]


def record_inputs(module: GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Remember the paths of the example's leaves, in the order of the placeholders."""
    module.meta[_INPUTS] = tuple(path for path, _ in input_leaves(module, args, kwargs))


def set_recorded_inputs(module: GraphModule, paths: tuple[str, ...]) -> None:
    """Remember paths that are known from elsewhere."""
    module.meta[_INPUTS] = paths


def recorded_inputs(module: GraphModule) -> tuple[str, ...]:
    """Return the paths recorded at capture, empty for a graph from elsewhere."""
    return tuple(module.meta.get(_INPUTS, ()))
