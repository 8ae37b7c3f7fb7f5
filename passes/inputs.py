"""The leaves of a module's inputs by name, so that a batch compares with what was captured."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule
from torch.utils import _pytree as pytree


def input_leaves(
    module: GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return ``(path, leaf)`` of every value in the arguments, e.g. ``("x['mask']", tensor)``.

    Raises:
        TypeError: the arguments do not fit the module's signature.
    """
    return leaves_of(inspect.signature(module.forward), args, kwargs)


def leaves_in(values: Any) -> list[Any]:
    """Return the leaves of nested values."""
    return pytree.tree_leaves(values)


def leaves_with_paths(values: Any) -> list[tuple[str, Any]]:
    """Return ``(path, leaf)`` of every leaf, e.g. ``("['mask']", tensor)``; one leaf has none."""
    return [(pytree.keystr(path), leaf) for path, leaf in pytree.tree_flatten_with_path(values)[0]]


def map_leaves(function: Callable[[Any], Any], values: Any) -> Any:
    """Return nested values with each leaf replaced."""
    return pytree.tree_map(function, values)


def equal_but_leaves(one: Any, other: Any) -> list[tuple[Any, Any]] | None:
    """Return the pairs of leaves of two nested values; None if they are nested differently."""
    mine, structure = pytree.tree_flatten(one)
    theirs, other_structure = pytree.tree_flatten(other)
    return list(zip(mine, theirs, strict=True)) if structure == other_structure else None


def leaves_of(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return ``(path, leaf)`` of every value in arguments for a signature.

    Raises:
        TypeError: they do not fit it.
    """
    bound = signature.bind(*args, **kwargs)
    return [
        (f"{name}{pytree.keystr(path)}", leaf)
        for name, value in bound.arguments.items()
        for path, leaf in pytree.tree_flatten_with_path(value)[0]
    ]
