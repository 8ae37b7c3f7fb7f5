"""Derive the graph for one example from a graph that was exported with free sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.inputs.leaves import leaves_in, map_leaves
from quantfx.patterns.schema import resolve_op

Symbolic = (torch.SymInt, torch.SymFloat, torch.SymBool)
"""A free size, or a value computed from free sizes."""

_SLICE = resolve_op("aten.slice.Tensor")
_CHECKS = ("aten._assert_scalar.default", "aten.sym_constrain_range_for_size.default")
_END = 2**63 - 1


class NotConcreteError(Exception):
    """A graph has sizes that the inputs do not determine."""


def make_concrete(module: GraphModule, sizes: Mapping[str, int]) -> frozenset[str]:
    """Replace free sizes by numbers, in place; return the names of the sizes that arguments read.

    With free sizes torch.export still takes the example's path, and notes the conditions under
    which other sizes take it. So the result equals an export for the example alone, at no cost. No
    code is generated.

    Args:
        module: Exported with free sizes.
        sizes: The value of each free size in the example.

    Raises:
        NotConcreteError: a size depends on data, a nested graph takes sizes, or a computed size is
            negative; the module is invalid then.
    """
    used: set[str] = set()
    known = _Numbers(sizes)
    for path, graph_module in all_graphs(module):
        numbers = {
            node: known.of(node.meta["val"])
            for node in graph_module.graph.nodes
            if isinstance(node.meta.get("val"), Symbolic)
        }
        if path and any(node.op == "placeholder" for node in numbers):
            raise NotConcreteError("a nested graph takes sizes")
        # Free sizes that arguments of operators are computed from, except in checks.
        for size in numbers:
            if any(not _is_check(user) and user not in numbers for user in size.users):
                used |= {str(symbol) for symbol in size.meta["val"].node.expr.free_symbols}
        _replace(graph_module, numbers, known)
    return frozenset(used)


def _replace(module: GraphModule, numbers: Mapping[Node, Any], known: _Numbers) -> None:
    for node in list(module.graph.nodes):
        if node not in numbers and not _is_check(node):
            node.args, node.kwargs = map_arg(
                (node.args, node.kwargs), lambda each: numbers.get(each, each)
            )
        if "val" in node.meta:
            node.meta["val"] = map_leaves(lambda leaf: _concrete(leaf, known), node.meta["val"])
        _simplify_slice(node)
    for node in reversed(list(module.graph.nodes)):
        if _is_check(node) or (node in numbers and node.op == "call_function"):
            module.graph.erase_node(node)


def _is_check(node: Node) -> bool:
    return str(node.target) in _CHECKS


class _Numbers:
    """Values of size expressions in the example; each is computed once, since many are equal.

    Args:
        sizes: By name.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._known: dict[Any, int | float | bool] = {}

    def of(self, value: Any) -> int | float | bool:
        """Return the value of a size or of an expression of sizes."""
        expression = value.node.expr
        if expression not in self._known:
            symbols = {each: self._sizes.get(str(each)) for each in expression.free_symbols}
            if None in symbols.values():
                raise NotConcreteError(f"{value} is no size of an input")
            kind = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(value)]
            self._known[expression] = kind(expression.subs(symbols))
        return self._known[expression]


def _concrete(leaf: Any, known: _Numbers) -> Any:
    if isinstance(leaf, Symbolic):
        return known.of(leaf)
    if not isinstance(leaf, Tensor):
        return leaf
    form = (leaf.shape, leaf.stride(), (leaf.storage_offset(),))
    if not any(isinstance(each, torch.SymInt) for part in form for each in part):
        return leaf
    shape, strides, (offset,) = (
        [int(known.of(each)) if isinstance(each, torch.SymInt) else each for each in part]
        for part in form
    )
    if offset < 0 or min(shape, default=0) < 0:
        raise NotConcreteError("the example takes another path than the sizes it stands for")
    mode: Any = getattr(leaf, "fake_mode", None)
    if mode is None:
        raise NotConcreteError("a tensor of free sizes that is no fake")
    with mode:
        if not offset:
            return torch.empty_strided(shape, strides, dtype=leaf.dtype, device=leaf.device)
        reach = 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        memory = torch.empty(offset + reach, dtype=leaf.dtype, device=leaf.device)
        return memory.as_strided(shape, strides, offset)


def _simplify_slice(node: Node) -> None:
    """Write a slice as an export for the example does: no full slices, a number as start."""
    if node.target is not _SLICE or node.kwargs or len(node.args) < 3:
        return
    x, dimension, start, *rest = node.args
    if start is None:
        node.args = (x, dimension, 0, *rest)
    whole = start in (0, None) and rest[:1] in ([None], [_END]) and rest[1:] in ([], [1])
    if whole and isinstance(x, Node):
        node.replace_all_uses_with(x)
        node.graph.erase_node(node)


def makes_sizes(module: GraphModule) -> bool:
    """Whether a size or number is not among the inputs' sizes, e.g. the count of selected rows.

    Decided by the names of sizes: files keep the names, but not what torch knows about them.
    """
    known: set[str] = set()
    for node in module.graph.find_nodes(op="placeholder"):
        known |= _names(node)
    return any(
        not _names(node) <= known
        for _, graph_module in all_graphs(module)
        for node in graph_module.graph.nodes
    )


def _names(node: Node) -> set[str]:
    """Return the names of the sizes that the value of ``node`` has or is computed from."""
    names: set[str] = set()
    for leaf in leaves_in(node.meta.get("val")):
        if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
            numbers: tuple[object, ...] = (*leaf.shape, *leaf.stride(), leaf.storage_offset())
        else:
            numbers = (leaf,)
        for number in numbers:
            if isinstance(number, Symbolic):
                names |= {str(symbol) for symbol in number.node.expr.free_symbols}
    return names
