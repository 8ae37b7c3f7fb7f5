"""For which sizes besides the example's a graph is valid, and on what conditions."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from torch.fx import GraphModule, Node

from quantfx.passes.export.concrete_sizes import NotConcreteError, Symbolic, make_concrete
from quantfx.passes.export.size_asserts import asserts_in
from quantfx.passes.graph.clone import recompile
from quantfx.passes.graph.graphs import all_graphs, referent
from quantfx.passes.inputs.leaves import (
    describe_leaves,
    equal_but_leaves,
    input_leaves,
    leaves_in,
    map_leaves,
)
from quantfx.passes.inputs.size_expression import UnknownExpression, size_names, size_value

Export = Callable[[tuple[Any, ...], dict[str, Any], Any], GraphModule]
Ranges = dict[str, tuple[int, int | None]]
Used = list[tuple[str, object]]
# torch writes "any size" as a number near the largest that fits.
_NO_BOUND = 2**62
_ASSERTS = ("aten._assert_scalar.default", "aten.sym_constrain_range_for_size.default")


@dataclass(frozen=True)
class FreeSizes:
    """What is known about the inputs' sizes.

    Attributes:
        values: A fake tensor or a size for each placeholder; the example's leaf where all is fixed.
        ranges: Smallest and largest value of each free size; None for no bound. Other sizes are
            fixed to the example's.
        conditions: Further conditions on free sizes, e.g. ``Eq(Mod(s0, 4), 0)``.
        asserts: What a graph for free sizes asserts about sizes that depend on data; None if only
            the example is known.
    """

    values: tuple[object, ...]
    ranges: Ranges
    conditions: tuple[str, ...] = ()
    asserts: frozenset[str] | None = None


def export_freely(
    export: Export,
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    agrees: Callable[[GraphModule], bool],
) -> tuple[GraphModule, FreeSizes]:
    """Return the graph for the example, and the other sizes that it is valid for.

    First dimensions that nothing depends on, such as the batch dimension, are free. The model is
    exported with all first dimensions free; sizes that no argument mentions stay free, and the
    example's numbers replace the others. torch takes the example's path either way. torch treats a
    size of 1 as special, so an example with one row is exported with two rows, if that graph
    ``agrees``. Where none of this works, the model is exported for the example as well, and the
    graphs are compared.

    Args:
        export: Exports the model for inputs and dynamic shapes.
        signature: Signature of the model's ``forward``.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
        agrees: Whether a graph computes what the model does on the example.
    """
    leaves = leaves_in((args, kwargs))
    rows = [leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()]
    if not any(rows):
        return export(args, kwargs, None), FreeSizes(tuple(leaves), {})
    # One row next to several is broadcast, as for a mask. If it comes first, the batch is one.
    several = map_leaves(_not_one, (args, kwargs)) if rows[0] == 1 else (args, kwargs)
    named = signature.bind(*several[0], **several[1]).arguments
    shapes = {name: describe_leaves(_first_free, name, value) for name, value in named.items()}
    free = partial(_try_export, export, several, shapes)
    symbolic = free()
    if symbolic is None:
        graph = export(args, kwargs, None)
        return graph, _fix_sizes(graph, args, kwargs)
    known = replace(sizes_of(symbolic), asserts=asserts_in(symbolic))
    leaves = [leaf for _, leaf in input_leaves(symbolic, args, kwargs)]
    if len(known.values) == len(leaves):
        try:
            used = make_concrete(symbolic, dict(_known_sizes(known.values, leaves)))
            if several[0] is not args:
                recompile(symbolic)
            if several[0] is args or agrees(symbolic):
                return symbolic, replace(_without(known, set(used)), asserts=None)
        except NotConcreteError:
            pass
        symbolic = free()  # numbers replaced sizes in the first; this is rare
        assert symbolic is not None
    graph = export(args, kwargs, None)
    return graph, _compare(graph, symbolic, known, _fix_sizes(graph, args, kwargs))


def _fix_sizes(graph: GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FreeSizes:
    return FreeSizes(tuple(leaf for _, leaf in input_leaves(graph, args, kwargs)), {})


def _compare(
    graph: GraphModule, symbolic: GraphModule, known: FreeSizes, fixed: FreeSizes
) -> FreeSizes:
    """Return the sizes of ``symbolic`` that ``graph`` is valid for as well."""
    used = used_sizes(graph, symbolic)
    if used is None or len(known.values) != len(fixed.values):
        return fixed
    return _without(known, {name for text, _ in used for name in _names(text)})


def sizes_of(symbolic: GraphModule) -> FreeSizes:
    """Return what an exported graph says about its inputs' sizes.

    A size under a condition without a text form counts as fixed, by having no range; so do sizes
    that other conditions tie to it.
    """
    values = tuple(node.meta.get("val") for node in symbolic.graph.find_nodes(op="placeholder"))
    symbols: dict[str, Any] = {}
    environment: Any = None
    for value in values:
        for size in value.shape if isinstance(value, Tensor) else (value,):
            if isinstance(size, torch.SymInt):
                environment = size.node.shape_env
                symbols |= {str(each): each for each in size.node.expr.free_symbols}
    if environment is None:
        return FreeSizes(values, {})
    conditions: dict[str, set[str]] = {}
    for guard in environment.guards:
        expression = environment.simplify(guard.expr)
        names = {str(each) for each in expression.free_symbols}
        if names & set(symbols):
            conditions[str(expression)] = names
    ranges: Ranges = {}
    for name, symbol in symbols.items():
        bounds = environment.bound_sympy(symbol)
        finite = bounds.upper.is_Integer and bounds.upper < _NO_BOUND
        ranges[name] = (int(bounds.lower), int(bounds.upper) if finite else None)
    unknown = {
        name
        for text, names in conditions.items()
        if not names <= set(symbols) or not _computes(text, names)
        for name in names
    }
    return _without(FreeSizes(values, ranges, tuple(sorted(conditions))), unknown)


def _computes(condition: str, names: set[str]) -> bool:
    try:
        size_value(condition, dict.fromkeys(names, 8))
    except UnknownExpression:
        return False
    return True


def _without(known: FreeSizes, fixed: set[str]) -> FreeSizes:
    """Return ``known`` with these sizes fixed, and all sizes that conditions tie to them."""
    fixed, before = set(fixed), -1
    while before < len(fixed):
        before = len(fixed)
        for condition in known.conditions:
            fixed |= _names(condition) if _names(condition) & fixed else set()
    return replace(
        known,
        ranges={name: bounds for name, bounds in known.ranges.items() if name not in fixed},
        conditions=tuple(each for each in known.conditions if not _names(each) & fixed),
    )


def _names(condition: str) -> frozenset[str]:
    try:
        return size_names(condition)
    except SyntaxError:  # not readable as Python: everything that looks like a name
        return frozenset(re.findall(r"[A-Za-z_]\w*", condition))


def _known_sizes(knowns: Sequence[Any], leaves: Sequence[Any]) -> Iterator[tuple[str, int]]:
    """Yield the name of each free size with its value in the inputs."""
    for known, leaf in zip(knowns, leaves, strict=True):
        if isinstance(known, Tensor):
            yield from zip(map(str, known.shape), leaf.shape, strict=True)
        else:
            yield str(known), leaf


def used_sizes(graph: GraphModule, symbolic: GraphModule) -> Used | None:
    """Return the arguments in ``symbolic`` that come from free sizes; None if the graphs differ.

    Args:
        graph: Exported for one example.
        symbolic: The same model, exported with free sizes.

    Returns:
        Expressions over the free sizes, with the values that ``graph`` has in their place.
    """
    used: Used = []
    others = dict(all_graphs(symbolic))
    for path, module in all_graphs(graph):
        if path not in others or not _is_same(module, others[path], used):
            return None
    return used


def _is_same(left: GraphModule, right: GraphModule, used: Used) -> bool:
    lefts, rights = list(_find_kept(left)), list(_find_kept(right))
    if len(lefts) != len(rights):
        return False
    places = {node: place for place, node in enumerate(lefts)}
    places |= {node: place for place, node in enumerate(rights)}
    for node in (*left.graph.nodes, *right.graph.nodes):
        if _is_whole(node):
            places[node] = places[node.all_input_nodes[0]]
    for one, other in zip(lefts, rights, strict=True):
        if one.op != other.op or not _same_target(left, right, one, other):
            return False
        pairs = equal_but_leaves(_arguments(one), _arguments(other))
        if pairs is None or not all(_same_argument(*pair, places, used) for pair in pairs):
            return False
    return True


def _find_kept(module: GraphModule) -> Iterator[Node]:
    """Yield the nodes that compute anything but sizes."""
    for node in module.graph.nodes:
        is_size = node.op == "call_function" and isinstance(node.meta.get("val"), Symbolic)
        is_nothing = str(node.target) in _ASSERTS or _is_plain_size(node) or _is_whole(node)
        if not is_size and not is_nothing:
            yield node


def _is_whole(node: Node) -> bool:
    """Whether ``node`` is a full slice, which ``x[:, 0]`` leaves where the size is free."""
    if node.target is not torch.ops.aten.slice.Tensor or node.kwargs:
        return False
    start, end, *step = node.args[2:] if len(node.args) > 3 else (1, 0)
    return start in (0, None) and end in (sys.maxsize, None) and step in ([], [1])


def _is_plain_size(node: Node) -> bool:
    """Whether ``node`` reads a size that is a number; the other export has a literal instead."""
    return node.op == "call_function" and type(node.meta.get("val")) in (int, float, bool)


def _arguments(node: Node) -> tuple[Any, ...]:
    """Return a node's arguments; torch writes a slice's start as 0, or None with free sizes."""
    args = node.args
    if node.target is torch.ops.aten.slice.Tensor and args[2:3] == (None,):
        args = (*args[:2], 0, *args[3:])
    return args, node.kwargs


def _same_target(left: GraphModule, right: GraphModule, one: Node, other: Node) -> bool:
    if one.op != "get_attr":
        return one.op == "output" or one.op == "placeholder" or one.target == other.target
    mine, theirs = referent(left, one), referent(right, other)
    if isinstance(mine, Tensor) and isinstance(theirs, Tensor):
        return mine is theirs or (
            mine.shape == theirs.shape
            and mine.dtype == theirs.dtype
            and mine.device == theirs.device
            and (mine.data_ptr() == theirs.data_ptr() or torch.equal(mine, theirs))
        )
    return one.target == other.target


def _same_argument(one: object, other: object, places: dict[Node, int], used: Used) -> bool:
    if isinstance(other, Node) and other not in places:  # a size, maybe literal there
        value = other.meta.get("val")
        if isinstance(value, Symbolic):
            literal = one.meta.get("val") if isinstance(one, Node) else one
            used.append((str(value.node.expr), literal))
            return True
        return one == value
    if isinstance(one, Node):
        return isinstance(other, Node) and one in places and places[one] == places[other]
    return type(one) is type(other) and (one == other or (one != one and other != other))


def _try_export(
    export: Export, inputs: tuple[tuple[Any, ...], dict[str, Any]], shapes: Any = None
) -> GraphModule | None:
    try:
        return export(*inputs, shapes)
    except Exception:  # sizes other than the example's need not work at all
        return None


def _not_one(leaf: object) -> object:
    """Two rows where there is one: torch treats a size of 1 as special."""
    if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == 1:
        return torch.cat((leaf, leaf))
    return leaf


def _first_free(_: str, leaf: object) -> Any:
    return {0: Dim.AUTO} if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] > 1 else None
