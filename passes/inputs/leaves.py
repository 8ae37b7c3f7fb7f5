"""The leaves of a module's inputs by name, to compare a batch with the captured inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword inputs of a call."""

_PLAIN = (int, float, bool, str, type(None))


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
    """Return ``(path, leaf)`` of every leaf: ``("['mask']", tensor)``; path "" of a lone leaf."""
    return [(pytree.keystr(path), leaf) for path, leaf in pytree.tree_flatten_with_path(values)[0]]


def map_leaves(function: Callable[[Any], Any], values: Any) -> Any:
    """Return nested values with each leaf replaced."""
    return pytree.tree_map(function, values)


def map_named_leaves(function: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    """Return the nested ``value`` of argument ``name`` with ``(path, leaf)`` of each replaced."""
    return pytree.tree_map_with_path(
        lambda path, leaf: function(f"{name}{pytree.keystr(path)}", leaf), value
    )


def describe_leaves(function: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    """Return ``function(path, leaf)`` for each leaf of argument ``name``, nested like the argument.

    A library's container, such as a Hugging Face cache, is replaced by the list of its children:
    torch.export takes ``dynamic_shapes`` that way, since the container itself holds only tensors.
    """
    children, spec = pytree.tree_flatten_with_path(value, is_leaf=lambda each: each is not value)
    if spec.is_leaf():
        return function(name, value)
    made = [
        describe_leaves(function, f"{name}{pytree.keystr(path)}", child) for path, child in children
    ]
    return pytree.tree_unflatten(made, spec) if spec.type in pytree.BUILTIN_TYPES else made


def equal_but_leaves(one: Any, other: Any) -> list[tuple[Any, Any]] | None:
    """Return the pairs of leaves of two nested values; None if the structures differ."""
    mine, structure = pytree.tree_flatten(one)
    theirs, other_structure = pytree.tree_flatten(other)
    return list(zip(mine, theirs, strict=True)) if structure == other_structure else None


def leaves_of(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return ``(path, leaf)`` of every value in arguments for a signature.

    Raises:
        TypeError: the arguments do not fit the signature.
    """
    bound = signature.bind(*args, **kwargs)
    return [
        (f"{name}{pytree.keystr(path)}", leaf)
        for name, value in bound.arguments.items()
        for path, leaf in pytree.tree_flatten_with_path(value)[0]
    ]


def structure_text(value: object, *, ordered: bool = True) -> str:
    """Return how ``value`` is nested, e.g. ``dict{'a': *, 'b': list[*, *]}``; a leaf is ``*``.

    Common containers are handled in plain Python, which Dynamo can trace.

    Args:
        value: The nested value.
        ordered: Whether to keep the order of keys in a dict; else keys are sorted.
    """
    kind = type(value)
    if isinstance(value, torch.Tensor) or kind in _PLAIN:
        return "*"
    if isinstance(value, (list, tuple)) and kind in (list, tuple):
        inner = [structure_text(each, ordered=ordered) for each in value]
        return f"{kind.__name__}[{', '.join(inner)}]"
    if isinstance(value, dict) and kind is dict:
        items = [f"{key!r}: {structure_text(each, ordered=ordered)}" for key, each in value.items()]
        items = items if ordered else sorted(items)
        return f"dict{{{', '.join(items)}}}"
    return _spec_text(pytree.tree_structure(value))


def _spec_text(spec: pytree.TreeSpec) -> str:
    if spec.is_leaf():
        return "*"
    inner = ", ".join(map(_spec_text, spec.children()))
    if spec.type in (list, tuple):
        return f"{spec.type.__name__}[{inner}]"
    if spec.type is dict:
        pairs = zip(spec.context, spec.children(), strict=True)
        return f"dict{{{', '.join(f'{key!r}: {_spec_text(each)}' for key, each in pairs)}}}"
    return f"{spec.type.__name__}({spec.context})[{inner}]"
