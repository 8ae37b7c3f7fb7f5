"""Compare the values of two graphs, regardless of layout and shape."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.dropouts import is_off
from quantfx.patterns.schema import (
    argument_value,
    arguments,
    is_operator_call,
    overload,
    resolve_op,
)
from quantfx.patterns.sizes import depends_on_data

_COPIES = frozenset(
    resolve_op(f"aten.{name}") for name in ("contiguous.default", "clone.default", "alias.default")
)
# These copy only where dtype or device differ.
_CONVERSIONS = frozenset(
    resolve_op(f"aten.to.{name}") for name in ("dtype", "dtype_layout", "device", "other")
)
_RESHAPES = frozenset(
    resolve_op(f"aten.{name}")
    for name in (
        "view.default",
        "_unsafe_view.default",
        "view_as.default",
        "reshape.default",
        "reshape_as.default",
        "flatten.using_ints",
        "unflatten.int",
        "ravel.default",
        "unsqueeze.default",
        "squeeze.default",
        "squeeze.dim",
        "squeeze.dims",
    )
)
_PERMUTE = resolve_op("aten.permute.default")
_REVERSED = frozenset(resolve_op(f"aten.{name}.default") for name in ("t", "numpy_T"))
_TRANSPOSES: dict[Any, tuple[str, str]] = {
    resolve_op("aten.transpose.int"): ("dim0", "dim1"),
    resolve_op("aten.swapaxes.default"): ("axis0", "axis1"),
}
_MT = resolve_op("aten.mT.default")


@dataclass(frozen=True)
class View:
    """The elements of a tensor in a different order or shape.

    Attributes:
        root: The tensor.
        steps: The operations on it, ``(dims, sizes)`` each: the dims of a permutation, None for a
            reshape, and the resulting sizes.
    """

    root: Node
    steps: tuple[tuple[tuple[int, ...] | None, tuple[str, ...]], ...]


# In one graph: a node that computes something, a view of its result, or a size as text.
Value = Node | View | str


def value_of(
    node: Node, values: Mapping[Node, Value], overwritten: Container[Node]
) -> Value | None:
    """Return the value that ``node`` stands for; None if it computes something itself.

    1. ``contiguous(x)``, ``clone(x)``, ``dropout(x, train=False) -> x``
    2. ``view(reshape(x, a), b) -> reshape(x, b)``; flatten, squeeze and the like are reshapes
    3. ``transpose(permute(x, a), i, j) -> permute(x, b)``
    4. a size ``-> "s0"``

    Args:
        node: A node of either graph.
        values: The values that earlier nodes stand for, in terms of one graph.
        overwritten: Tensors that a later node writes to: a copy of such a tensor is another value.
    """
    size = size_of(node)
    if size is not None or not is_operator_call(node):
        return size
    source = node.all_input_nodes[0] if node.all_input_nodes else None
    value = None if source is None else values.get(source)
    if source is None or value is None or isinstance(value, str):
        return None
    if node in overwritten or source in overwritten:
        return None
    if node.target in _COPIES or is_off(node) or _is_same_form(node, source):
        return value
    sizes = sizes_of(node)
    if sizes is None or sizes_of(source) is None:
        return None
    if node.target in _RESHAPES:
        return _with_step(value, None, sizes)
    dims = _dims(node, len(sizes))
    return None if dims is None else _with_step(value, dims, sizes)


def size_of(node: Node) -> str | None:
    """Return the size that ``node`` yields; None if it yields something else."""
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, (int, torch.SymInt)):
        return None
    if depends_on_data(value):
        return None
    return str(value)


def sizes_of(node: Node) -> tuple[str, ...] | None:
    """Return the sizes of a tensor; None if they depend on data, as their names are arbitrary."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or depends_on_data(value):
        return None
    return tuple(map(str, value.shape))


def _is_same_form(node: Node, source: Node) -> bool:
    """Whether ``node`` converts a tensor to the form it already has."""
    left, right = node.meta.get("val"), source.meta.get("val")
    if node.target not in _CONVERSIONS or not isinstance(left, Tensor):
        return False
    if not isinstance(right, Tensor):
        return False
    return (left.dtype, left.device, left.layout) == (right.dtype, right.device, right.layout)


def _dims(node: Node, rank: int) -> tuple[int, ...] | None:
    """Return the dims of a permutation; None if ``node`` is not a permutation."""
    names = _TRANSPOSES.get(node.target)
    if names is not None:
        return _swap(rank, *(argument_value(node, name) for name in names))
    if node.target in _REVERSED:
        return tuple(reversed(range(rank)))
    if node.target is _MT:
        return _swap(rank, -2, -1)
    if node.target is _PERMUTE:
        return tuple(dim % rank for dim in argument_value(node, "dims"))
    return None


def _swap(rank: int, left: int, right: int) -> tuple[int, ...]:
    dims = list(range(rank))
    dims[left], dims[right] = dims[right], dims[left]
    return tuple(dims)


def _with_step(value: Node | View, dims: tuple[int, ...] | None, sizes: tuple[str, ...]) -> Value:
    root, steps = (value.root, value.steps) if isinstance(value, View) else (value, ())
    if steps and (steps[-1][0] is None) is (dims is None):
        last = steps[-1][0]
        steps = steps[:-1]
        dims = None if dims is None or last is None else tuple(last[dim] for dim in dims)
    before = steps[-1][1] if steps else sizes_of(root)
    is_nothing = before == sizes if dims is None else dims == tuple(range(len(dims)))
    if not is_nothing:
        steps = (*steps, (dims, sizes))
    return View(root, steps) if steps else root


def is_same(ours: Any, theirs: Any, same_node: Callable[[Node, Node], bool]) -> bool:
    """Whether two arguments are the same; ``same_node`` compares nodes."""
    if isinstance(ours, Node):
        return isinstance(theirs, Node) and same_node(ours, theirs)
    if isinstance(ours, (list, tuple)):
        return (
            isinstance(theirs, (list, tuple))
            and len(ours) == len(theirs)
            and all(is_same(a, b, same_node) for a, b in zip(ours, theirs, strict=True))
        )
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(
            is_same(value, theirs[key], same_node) for key, value in ours.items()
        )
    return type(ours) is type(theirs) and bool(ours == theirs)


def pairs_of_arguments(node: Node, other: Node) -> list[tuple[str, Any, Any]]:
    """Return the arguments of two calls of one operator: name, value here and value there."""
    if not is_operator_call(node):
        return [("args", node.args, other.args), ("kwargs", node.kwargs, other.kwargs)]
    names = arguments(overload(node))
    return [(name, argument_value(node, name), argument_value(other, name)) for name in names]
