"""Check inputs that Dynamo traces against a contract, so that it guards on what was compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from quantfx.passes.inputs.contract import InputContract, InputForm
from quantfx.passes.inputs.leaves import leaves_in, structure_text
from quantfx.passes.inputs.size_expression import compute
from quantfx.passes.inputs.size_rule import SizedPlace


def fits_traced(contract: InputContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the inputs that a tracer such as Dynamo sees fit; it guards on the sizes compared.

    Nothing is cached: Dynamo would guard on the cache and recompile.
    """
    names = contract.arguments[len(args) :]
    if len(kwargs) != len(names) or any(name not in kwargs for name in names):
        return False
    if contract.positional is not None and len(args) > contract.positional:
        return False
    values = (*args, *[kwargs[name] for name in names])
    if contract.structures and [structure_text(each) for each in values] != [*contract.structures]:
        return False
    leaves = leaves_in(values)
    if len(leaves) != len(contract.forms):
        return False
    sizes: dict[str, Any] = {}
    for leaf, form in zip(leaves, contract.forms, strict=True):
        if not _leaf_fits(leaf, form, sizes):
            return False
    solve(contract, leaves, sizes)
    return _sizes_fit(contract, leaves, sizes)


def _leaf_fits(leaf: Any, form: InputForm, sizes: dict[str, Any]) -> bool:
    if not isinstance(leaf, Tensor):
        if form.free and type(leaf) is not bool:
            if form.free.isidentifier():
                sizes.setdefault(form.free, leaf)
            return form.dtype is None
        return form.dtype is None and equal_values(leaf, form.value)
    if leaf.dtype != form.dtype or leaf.dim() != len(form.shape):
        return False
    if form.strides is not None and leaf.storage_offset() != form.offset:
        return False
    pairs = [*zip(form.shape, leaf.shape, strict=True)]
    if form.strides is not None:
        pairs += zip(form.strides, leaf.stride(), strict=True)
    if any(isinstance(size, int) and actual != size for size, actual in pairs):
        return False
    for size, actual in zip(form.shape, leaf.shape, strict=True):
        if isinstance(size, str) and size.isidentifier():
            sizes.setdefault(size, actual)
    return True


def _sizes_fit(contract: InputContract, leaves: list[Any], sizes: dict[str, Any]) -> bool:
    for name, (low, high) in contract.ranges.items():
        if name in sizes and (sizes[name] < low or (high is not None and sizes[name] > high)):
            return False
    for place in contract.sized:
        if compute(place.tree, sizes) != actual_size(place, leaves):
            return False
    return all(rule.holds(sizes) for rule in contract.rules)


def solve(contract: InputContract, values: Sequence[Any], sizes: dict[str, Any]) -> None:
    """Solve for sizes that no dimension has alone, as s0 in 2*s0; torch has only linear ones."""
    for place in contract.sized:
        names = [name for name in place.names if name not in sizes]
        if len(names) == 1:
            name = names[0]
            offset = compute(place.tree, {**sizes, name: 0})
            factor = compute(place.tree, {**sizes, name: 1}) - offset
            sizes[name] = (actual_size(place, values) - offset) // (factor or 1)


def actual_size(place: SizedPlace, values: Sequence[Any]) -> Any:
    """Return the actual value at a place of the inputs."""
    value = values[place.form]
    if place.what == "value":
        return value
    return (value.shape if place.what == "size" else value.stride())[place.place]


def equal_values(value: object, captured: object) -> bool:
    """Whether two values have the same type and value, including NaN and the sign of zero."""
    if type(value) is not type(captured):
        return False
    if isinstance(captured, float) and (math.isnan(captured) or not captured):
        return repr(value) == repr(captured)  # == does not distinguish these
    return bool(value == captured)
