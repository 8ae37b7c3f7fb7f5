"""Input contracts: what a graph assumes about its inputs, as the exporter specialized them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.inputs.size_expression import size_names
from quantfx.passes.inputs.size_rule import SizedPlace, SizeRule, size_rule, sized_place
from quantfx.passes.inputs.value_text import decode, encode

_KEY = "quantfx_inputs"


@dataclass(frozen=True)
class InputForm:
    """One leaf of the inputs.

    Attributes:
        path: Where the leaf is, e.g. ``x['mask']``.
        dtype: Dtype of a tensor; None for any other value.
        device: Device of a tensor, e.g. ``cpu``.
        shape: Shape of a tensor: a number where the graph is valid for that size only, else an
            expression over free sizes, e.g. ``s0`` or ``2*s0``.
        value: A value other than a tensor; the graph is valid for this value only.
        free: For a whole number that may vary: an expression over free sizes.
        strides: Strides of a tensor, sizes or expressions, if the graph needs this layout.
        offset: Offset of a tensor in its storage, if the graph needs this layout.
    """

    path: str
    _: KW_ONLY
    dtype: torch.dtype | None = None
    device: str = ""
    shape: tuple[int | str, ...] = ()
    value: object = None
    free: str = ""
    strides: tuple[int | str, ...] | None = None
    offset: int | None = None

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
        conditions: Further conditions on free sizes, e.g. ``Eq(Mod(s0, 4), 0)``.
        checked: Whether calls are checked against the contract.
        structures: ``structure_text`` of each argument; empty if unknown.
        positional: How many arguments have the same position as in the model; None for all.
        unordered: ``structures`` with sorted keys, if the order of keys is free; else empty.
        rules: ``conditions`` in computable form.
        sized: Places in ``forms`` that are expressions over free sizes.
    """

    arguments: tuple[str, ...]
    forms: tuple[InputForm, ...]
    _: KW_ONLY
    ranges: Mapping[str, tuple[int, int | None]]
    conditions: tuple[str, ...] = ()
    checked: bool = True
    structures: tuple[str, ...] = ()
    positional: int | None = None
    unordered: tuple[str, ...] = ()
    rules: tuple[SizeRule, ...] = field(init=False, repr=False, compare=False)
    sized: tuple[SizedPlace, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse conditions and expressions; Dynamo cannot do so while tracing."""
        numbers = {name for form in self.forms if form.free for name in size_names(form.free)}
        rules = tuple(size_rule(condition, numbers) for condition in self.conditions)
        object.__setattr__(self, "rules", rules)
        sized = (_find_sized(form, index) for index, form in enumerate(self.forms))
        object.__setattr__(self, "sized", tuple(each for places in sized for each in places))

    def for_example_only(self, leaves: Sequence[object]) -> InputContract:
        """Return the contract of code that is valid for the sizes of these inputs only."""
        forms = tuple(
            _of_example(form, leaf) for form, leaf in zip(self.forms, leaves, strict=True)
        )
        return replace(self, forms=forms, ranges={}, conditions=())

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as plain data for ``from_dict``."""
        return {
            "arguments": list(self.arguments),
            "forms": [_form_data(form) for form in self.forms],
            "ranges": {name: list(bounds) for name, bounds in self.ranges.items()},
            "conditions": list(self.conditions),
            "checked": self.checked,
            "structures": list(self.structures),
            "positional": self.positional,
            "unordered": list(self.unordered),
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> InputContract:
        """Return the contract that ``data`` describes."""
        ranges = {str(name): (bounds[0], bounds[1]) for name, bounds in data["ranges"].items()}
        return InputContract(
            tuple(map(str, data["arguments"])),
            tuple(_form(each) for each in data["forms"]),
            ranges=ranges,
            conditions=tuple(map(str, data["conditions"])),
            checked=bool(data["checked"]),
            structures=tuple(map(str, data["structures"])),
            positional=data["positional"],
            unordered=tuple(map(str, data["unordered"])),
        )


def _form_data(form: InputForm) -> dict[str, Any]:
    return vars(form) | {
        "dtype": None if form.dtype is None else encode(form.dtype),
        "shape": list(form.shape),
        "value": encode(form.value),
        "strides": None if form.strides is None else list(form.strides),
    }


def _form(data: dict[str, Any]) -> InputForm:
    made: dict[str, Any] = {
        "dtype": None if data["dtype"] is None else decode(data["dtype"], {}),
        "shape": _sizes(data["shape"]),
        "value": decode(data["value"], {}),
        "strides": None if data["strides"] is None else _sizes(data["strides"]),
    }
    return InputForm(**(data | made))


def _sizes(data: Iterable[object]) -> tuple[int | str, ...]:
    return tuple(size if isinstance(size, int) else str(size) for size in data)


def _find_sized(form: InputForm, index: int) -> Iterator[SizedPlace]:
    if form.free:
        yield sized_place(index, "value", 0, form.free)
    for what, sizes in (("size", form.shape), ("stride", form.strides or ())):
        for place, size in enumerate(sizes):
            if isinstance(size, str):
                yield sized_place(index, what, place, size)


def _of_example(form: InputForm, leaf: object) -> InputForm:
    if isinstance(leaf, Tensor):
        strides = None if form.strides is None else tuple(leaf.stride())
        return replace(form, shape=tuple(leaf.shape), strides=strides)
    return replace(form, free="", value=leaf) if form.free else form


def contract_of(module: GraphModule) -> InputContract | None:
    """Return the input contract of ``module``; None for a graph from elsewhere."""
    found = module.meta.get(_KEY)
    return found if isinstance(found, InputContract) else None


def set_contract(module: GraphModule, contract: InputContract | None) -> None:
    """Set the input contract of ``module``; None removes it."""
    if contract is None:
        module.meta.pop(_KEY, None)
    else:
        module.meta[_KEY] = contract


def free_numbers(module: GraphModule) -> list[str]:
    """Return the paths of the inputs that are whole numbers which may vary."""
    contract = contract_of(module)
    return [] if contract is None else [form.path for form in contract.forms if form.free]


def shape_text(form: InputForm) -> str:
    """Return the shape as Python writes it, e.g. ``(s0, 3)``."""
    return f"({', '.join(map(str, form.shape))}{',' * (len(form.shape) == 1)})"


def form_of_leaf(
    path: str, leaf: object, known: object, free: Collection[str], *, layout: bool = False
) -> InputForm:
    """Return the form of an example's leaf.

    Args:
        path: Where the leaf is.
        leaf: The leaf of the example.
        known: What export has for the leaf: a symbolic tensor or number, or the leaf itself.
        free: Names of the free sizes; all other sizes are fixed to the example's.
        layout: Whether the graph is valid for the leaf's layout only.
    """
    if isinstance(leaf, Tensor):
        traced = known if isinstance(known, Tensor) else leaf
        shape = _describe_sizes(traced.shape, leaf.shape, free)
        form = InputForm(path, dtype=leaf.dtype, device=str(leaf.device), shape=shape)
        if not layout:
            return form
        strides = _describe_sizes(traced.stride(), leaf.stride(), free)
        return replace(form, strides=strides, offset=int(leaf.storage_offset()))
    if isinstance(known, (torch.SymInt, torch.SymFloat)) and _is_free(known, free):
        return InputForm(path, free=str(known))
    return InputForm(path, value=leaf)


def _describe_sizes(
    sizes: Sequence[object], actual: Sequence[int], free: Collection[str]
) -> tuple[int | str, ...]:
    pairs = zip(sizes, actual, strict=True)
    return tuple(str(size) if _is_free(size, free) else own for size, own in pairs)


def _is_free(size: object, free: Collection[str]) -> bool:
    names = frozenset[str]() if isinstance(size, int) else size_names(str(size))
    return bool(names) and names <= set(free)
