"""Results other than tensors: numbers, flags and text, which compilers lose.

torch 2.13: Inductor fails on a graph that returns a float or text, and an AOTInductor library
returns numbers as tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

from quantfx.passes.errors import FileError
from quantfx.passes.inputs.calling_convention import encode_convention, take_outputs_apart
from quantfx.passes.inputs.leaves import leaves_in
from quantfx.passes.inputs.structure_text import is_torch_text

_NUMBERS: dict[type[Any], Callable[[Any], Any]] = {
    torch.SymInt: int,
    torch.SymFloat: float,
    torch.SymBool: bool,
}
Restore = Callable[[Any], Any]


def constants_of(graph: Graph) -> dict[int, Any]:
    """Return the results of ``graph`` that no node computes, by index among the leaves."""
    return {
        place: leaf
        for place, leaf in enumerate(_results(graph))
        if not isinstance(leaf, Node) and leaf is not None
    }


def take_out_plain(graph: Graph, *, for_library: bool = False) -> Restore | None:
    """Let ``graph`` return what compilers keep; return a function that restores its own results.

    Args:
        graph: Changed in place unless None is returned: it then returns a flat tuple, with None in
            place of each constant.
        for_library: Whether AOTInductor compiles; it also cannot store every structure.
    """
    constants = constants_of(graph)
    numbers = _numbers(graph) if for_library else {}
    if not constants and not numbers and not (for_library and _has_no_text(graph)):
        return None
    nested = take_outputs_apart(graph)
    kept = [None if place in constants else leaf for place, leaf in enumerate(_results(graph))]
    (output,) = graph.find_nodes(op="output")
    output.args = (tuple(kept),)

    def restore(results: Any) -> Any:
        leaves = list(results)
        for place, value in constants.items():
            leaves[place] = value
        for place, kind in numbers.items():
            leaves[place] = kind(leaves[place])
        return nested(leaves)

    return restore


def _results(graph: Graph) -> list[Any]:
    (output,) = graph.find_nodes(op="output")
    return leaves_in(output.args[0])


def _numbers(graph: Graph) -> dict[int, Callable[[Any], Any]]:
    """Return, by index, functions that turn a library's tensors back into numbers."""
    kinds = [_kind(leaf) for leaf in _results(graph)]
    return {place: kind for place, kind in enumerate(kinds) if kind is not None}


def _kind(leaf: object) -> Callable[[Any], Any] | None:
    value: object = leaf.meta.get("val") if isinstance(leaf, Node) else None
    if type(value) in (int, float, bool):
        return type(value)
    return next((make for kind, make in _NUMBERS.items() if isinstance(value, kind)), None)


def _has_no_text(graph: Graph) -> bool:
    try:
        convention = encode_convention(graph)
    except FileError:
        return True
    return convention is not None and not is_torch_text(convention["outputs"])
