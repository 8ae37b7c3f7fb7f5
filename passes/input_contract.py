"""What a graph takes for granted of its inputs: what the exporter specialized on their example."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.size_expression import size_names
from quantfx.passes.value_text import decode, encode

_KEY = "quantfx_inputs"


@dataclass(frozen=True)
class InputForm:
    """One leaf of the inputs.

    Attributes:
        path: Where it is, e.g. ``x['mask']``.
        dtype: Of a tensor; None for another value.
        device: Of a tensor, e.g. ``cpu``.
        shape: Of a tensor: a number where the graph holds for that size only, an expression over
            free sizes, e.g. ``s0`` or ``2*s0``, where it does not.
        value: Of what is no tensor; the graph holds for it only.
        free: What is no tensor may be any number: an expression over free sizes.
    """

    path: str
    dtype: torch.dtype | None = None
    device: str = ""
    shape: tuple[int | str, ...] = ()
    value: object = None
    free: str = ""

    def mentions(self, name: str) -> bool:
        """Whether the free size of that name is part of this one's form."""
        sizes = [size for size in (*self.shape, self.free) if isinstance(size, str) and size]
        return any(name in size_names(size) for size in sizes)

    @property
    def free_dimensions(self) -> frozenset[int]:
        """The dimensions of a tensor whose size is free."""
        return frozenset(p for p, size in enumerate(self.shape) if isinstance(size, str))


@dataclass(frozen=True)
class InputContract:
    """The forms of all leaves of a graph's inputs.

    Attributes:
        arguments: Names of the arguments, in order.
        forms: In the order of the placeholders.
        ranges: Smallest and largest value of each free size; None for no bound.
        conditions: What else holds of free sizes, e.g. ``Eq(Mod(s0, 4), 0)``.
        checked: Whether calls are checked against it.
    """

    arguments: tuple[str, ...]
    forms: tuple[InputForm, ...]
    ranges: Mapping[str, tuple[int, int | None]]
    conditions: tuple[str, ...] = ()
    checked: bool = True

    def for_example_only(self, leaves: Sequence[object]) -> InputContract:
        """Return the contract of code made for the sizes of these inputs alone."""
        forms = tuple(
            replace(form, shape=tuple(leaf.shape)) if isinstance(leaf, Tensor) else form
            for form, leaf in zip(self.forms, leaves, strict=True)
        )
        return replace(self, forms=forms, ranges={}, conditions=())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, from which ``from_dict`` makes it again."""
        return {
            "arguments": list(self.arguments),
            "forms": [
                {
                    "path": form.path,
                    "dtype": None if form.dtype is None else encode(form.dtype),
                    "device": form.device,
                    "shape": list(form.shape),
                    "value": encode(form.value),
                    "free": form.free,
                }
                for form in self.forms
            ],
            "ranges": {name: list(bounds) for name, bounds in self.ranges.items()},
            "conditions": list(self.conditions),
            "checked": self.checked,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> InputContract:
        """Return the contract that ``data`` describes."""
        forms = tuple(
            InputForm(
                str(each["path"]),
                None if each["dtype"] is None else decode(each["dtype"], {}),
                str(each["device"]),
                tuple(size if isinstance(size, int) else str(size) for size in each["shape"]),
                decode(each["value"], {}),
                str(each["free"]),
            )
            for each in data["forms"]
        )
        ranges = {str(name): (bounds[0], bounds[1]) for name, bounds in data["ranges"].items()}
        names = tuple(map(str, data["arguments"]))
        return cls(names, forms, ranges, tuple(map(str, data["conditions"])), bool(data["checked"]))


def contract_of(module: GraphModule) -> InputContract | None:
    """Return what ``module`` takes for granted; None for a graph from elsewhere."""
    found = module.meta.get(_KEY)
    return found if isinstance(found, InputContract) else None


def set_contract(module: GraphModule, contract: InputContract | None) -> None:
    """Record what ``module`` takes for granted; None forgets it."""
    if contract is None:
        module.meta.pop(_KEY, None)
    else:
        module.meta[_KEY] = contract


def shape_text(form: InputForm) -> str:
    """Return the shape as Python writes it, e.g. ``(s0, 3)``."""
    return f"({', '.join(map(str, form.shape))}{',' * (len(form.shape) == 1)})"


def form_of_leaf(path: str, leaf: object, known: object, free: Collection[str]) -> InputForm:
    """Return the form of an example's leaf, of which export knows ``known``.

    Args:
        path: Where it is.
        leaf: Of the example.
        known: A tensor or number of symbols, or the leaf.
        free: Names of the free sizes; whatever else is fixed to the example's.
    """
    if isinstance(leaf, Tensor):
        sizes = known.shape if isinstance(known, Tensor) else leaf.shape
        pairs = zip(sizes, leaf.shape, strict=True)
        shape = tuple(str(size) if _is_free(size, free) else actual for size, actual in pairs)
        return InputForm(path, leaf.dtype, str(leaf.device), shape)
    if isinstance(known, (torch.SymInt, torch.SymFloat)) and _is_free(known, free):
        return InputForm(path, free=str(known))
    return InputForm(path, value=leaf)


def _is_free(size: object, free: Collection[str]) -> bool:
    names = frozenset[str]() if isinstance(size, int) else size_names(str(size))
    return bool(names) and names <= set(free)
