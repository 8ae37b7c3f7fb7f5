"""Check a call's inputs against what its graph assumes about them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from enum import Enum
from operator import attrgetter
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from quantfx.passes.errors import InputError
from quantfx.passes.inputs.contract import InputContract, InputForm, shape_text
from quantfx.passes.inputs.fits_traced import actual_size, equal_values, solve
from quantfx.passes.inputs.leaves import leaves_of, structure_text
from quantfx.passes.inputs.shapes_line import other_dimensions, shapes_line
from quantfx.passes.inputs.size_expression import compute

_REMEMBERED = 256
_SHOWN = (str, int, float, complex, type(None), torch.dtype, torch.device)
_FORM = attrgetter("dtype", "shape", "is_cpu")
_OFF = "check_inputs=False at capture removes the checks"

_EMPTY = (
    "leave out calls with empty inputs: the model computes something else for them, a kernel fails "
    "on them, or the config finds ranges in each call, and an empty tensor has no range"
)


class InputCheck:
    """Checks calls of one graph.

    In the usual call every argument is positional and a tensor or a plain value; it is compared
    with an earlier checked call, in C loops. Nested and keyword arguments, new sizes and
    differences are checked by name.

    Attributes:
        contract: What the graph assumes about its inputs.

    Args:
        contract: What the graph assumes about its inputs.
        signature: Signature of the graph's ``forward``.
    """

    def __init__(self, contract: InputContract, signature: inspect.Signature) -> None:
        self.contract = contract
        self._signature = signature
        self._flat = contract.arguments == tuple(form.path for form in contract.forms) and all(
            not form.free and form.strides is None and form.device in ("", "cpu")
            for form in contract.forms
        )
        self._positional = contract.positional
        if self._positional is not None and self._positional < len(contract.arguments):
            self._flat = False
        self._structures = dict(zip(contract.arguments, contract.structures, strict=False))
        self._unordered = dict(zip(contract.arguments, contract.unordered, strict=False))
        forms = contract.forms
        self._tensors = [place for place, form in enumerate(forms) if form.dtype is not None]
        self._values = [
            (place, form.value) for place, form in enumerate(forms) if form.dtype is None
        ]
        self._zeros = [
            (place, math.copysign(1.0, value))
            for place, value in self._values
            if isinstance(value, float) and not value
        ]
        self._kinds = [Tensor] * len(self._tensors)
        # Keyed by the shape of the first input with a free size: most inputs vary with that size.
        free = (place for place in self._tensors if forms[place].free_dimensions)
        self._varying = next(free, None)
        self._known: dict[torch.Size | None, list[tuple[torch.dtype, torch.Size, bool]]] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check the arguments of a call.

        Raises:
            InputError: the graph is not valid for them; names the input and the fix.
        """
        flat = self._flat and not kwargs and len(args) == len(self.contract.forms)
        if flat and self._was_looked_at(args):
            return
        self._look(args, kwargs)
        if flat and all(type(each) is Tensor for each in self._tensors_in(args)):
            self._remember(args)

    def _tensors_in(self, args: tuple[Any, ...]) -> Sequence[Any]:
        """The tensors among positional arguments."""
        return [args[place] for place in self._tensors] if self._values else args

    def _remember(self, args: tuple[Any, ...]) -> None:
        tensors = self._tensors_in(args)
        if any(type(size) is not int for tensor in tensors for size in tensor.shape):
            return  # symbols of a tracer
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[self._key(args)] = list(map(_FORM, tensors))

    def _key(self, args: tuple[Any, ...]) -> torch.Size | None:
        if self._varying is None:
            return None
        given = args[self._varying]
        return given.shape if type(given) is Tensor else None

    def _was_looked_at(self, args: tuple[Any, ...]) -> bool:
        for place, expected in self._values:
            if type(args[place]) is not type(expected) or args[place] != expected:
                return False
        for place, sign in self._zeros:
            if math.copysign(1.0, args[place]) != sign:
                return False
        tensors = self._tensors_in(args)
        if list(map(type, tensors)) != self._kinds:
            return False
        known = self._known.get(self._key(args))
        return known is not None and list(map(_FORM, tensors)) == known

    def _look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            leaves = leaves_of(self._signature, args, kwargs)
        except TypeError as error:
            names = ", ".join(self._signature.parameters)
            message = f"the graph was captured with the arguments ({names}): {error}."
            fix = "give each of them, defaults too, or capture again without"
            raise InputError(message, rule="input-names", site=names, fix=fix) from None
        self._check_structure(args, kwargs)
        given = dict(leaves)
        expected = {form.path: form for form in self.contract.forms}
        if given.keys() != expected.keys():
            _refuse_structure(set(given), set(expected))
        sizes: dict[str, int] = {}
        arguments = self._signature.bind(*args, **kwargs).arguments
        for path, form in expected.items():
            self._check_leaf(given[path], form, sizes, arguments)
        self._check_sizes(given, sizes)

    def _check_structure(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._positional is not None and len(args) > self._positional:
            name = self.contract.arguments[self._positional]
            raise InputError(
                f"argument '{name}' has another position in the graph than in the model, "
                "because the example left out arguments before it",
                rule="input-names",
                site=name,
                fix=f"give it by name, {name}=...",
            )
        for name, value in self._signature.bind(*args, **kwargs).arguments.items():
            expected = self._structures.get(name, "*")
            if expected == "*" or structure_text(value) == expected:
                continue
            if structure_text(value, ordered=False) != self._unordered.get(name):
                _refuse(
                    name,
                    f"is nested as {structure_text(value)}",
                    expected,
                    "give the same containers, with the same keys in that order, or capture again",
                )

    def _check_leaf(
        self, value: object, form: InputForm, sizes: dict[str, int], arguments: dict[str, Any]
    ) -> None:
        if form.dtype is not None:
            tensor = _tensor_like(value, form)
            if other_dimensions(form, tensor):
                _refuse(
                    form.path,
                    f"has shape {tuple(tensor.shape)}",
                    shape_text(form),
                    "the graph computes with that size: capture again with "
                    f"{shapes_line(self.contract, arguments)}, or, where the model itself fixes "
                    "the size, with an example of that shape",
                )
            if form.strides is not None:
                _check_layout(tensor, form, form.strides)
            for size, actual in zip(form.shape, tensor.shape, strict=True):
                if isinstance(size, str) and size.isidentifier():
                    sizes.setdefault(size, actual)
        elif form.free:
            if type(value) is not int and not isinstance(value, torch.SymInt):
                _refuse(form.path, f"is {_describe(value)}", "a whole number")
            if form.free.isidentifier():
                sizes.setdefault(form.free, cast(int, value))
        elif not equal_values(value, form.value):
            is_number = isinstance(value, (int, float)) and isinstance(form.value, (int, float))
            raise InputError(
                f"input '{form.path}' is {_describe(value)}, but the graph was captured "
                f"with {_describe(form.value)} and always computes with that value",
                rule="input-value",
                site=form.path,
                fix=(
                    "capture again "
                    f"with {_describe(value)}{', or make it a tensor' if is_number else ''}. {_OFF}"
                ),
            )

    def _check_sizes(self, given: dict[str, object], sizes: dict[str, int]) -> None:
        values = [given[form.path] for form in self.contract.forms]
        solve(self.contract, values, sizes)
        self._check_ranges(sizes)
        for place in self.contract.sized:
            expected, actual = compute(place.tree, sizes), actual_size(place, values)
            if expected != actual:
                told = "" if place.text in sizes else f" ({place.text})"
                _refuse(
                    self.contract.forms[place.form].path,
                    f"has {place.what} {actual} in dimension {place.place}",
                    f"{expected}, as other inputs have it{told}",
                    "give inputs that agree",
                )
        for rule in self.contract.rules:
            if not rule.holds(sizes):
                shown = ", ".join(f"{name} = {size}" for name, size in sizes.items())
                message = f"the graph holds where {rule.text}, and the inputs have {shown}"
                fix = f"capture again with an example of these sizes. {_OFF}"
                raise InputError(message, rule="input-sizes", site=rule.text, fix=fix)

    def _check_ranges(self, sizes: dict[str, int]) -> None:
        for name, (low, high) in self.contract.ranges.items():
            size = sizes.get(name)
            if size is not None and (size < low or (high is not None and size > high)):
                least = f"at least {low}" if high is None else f"{low} to {high}"
                place = next(each for each in self.contract.sized if name in each.names)
                where = self.contract.forms[place.form]
                _refuse(
                    where.path,
                    f"makes {name} = {size}",
                    f"{least}, in the shape {shape_text(where)}",
                    _EMPTY if size == 0 else "capture again with bounds that include it",
                )


def _tensor_like(value: object, form: InputForm) -> Tensor:
    """Return ``value`` if it is a tensor of the dtype, device and rank that the graph takes."""
    if not isinstance(value, Tensor):
        _refuse(form.path, f"is {_describe(value)}", "a tensor")
    if value.dtype != form.dtype:
        _refuse(form.path, f"is {value.dtype}", str(form.dtype), f"convert it to {form.dtype}")
    # Fake tensors on a missing device stand for a graph moved to that device.
    if type(value) in (Tensor, nn.Parameter) and str(value.device) != form.device:
        _refuse(form.path, f"is on {value.device}", form.device, f"move it to {form.device}")
    if value.dim() != len(form.shape):
        _refuse(form.path, f"has shape {tuple(value.shape)}", shape_text(form))
    return value


def _check_layout(value: Tensor, form: InputForm, strides: tuple[int | str, ...]) -> None:
    same = all(
        isinstance(own, str) or own == actual
        for own, actual in zip(strides, value.stride(), strict=True)
    )
    if not same or value.storage_offset() != form.offset:
        _refuse(
            form.path,
            f"has strides {value.stride()} and offset {value.storage_offset()}",
            f"strides ({', '.join(map(str, strides))}) and offset {form.offset}, which the model "
            "reads",
            "copy it into that layout, as with .contiguous(), or capture again with an example in "
            "that layout",
        )


def _refuse(
    path: str, found: str, expected: str, way_out: str = "capture again with an example like it"
) -> NoReturn:
    message = f"input '{path}' {found}, and the graph was captured for {expected}"
    raise InputError(message, rule="input-shape", site=path, fix=f"{way_out}. {_OFF}")


def _refuse_structure(given: set[str], expected: set[str]) -> NoReturn:
    more, less = sorted(given - expected), sorted(expected - given)
    told = [f"it has {', '.join(more)} more"] * bool(more)
    told += [f"it lacks {', '.join(less)}"] * bool(less)
    raise InputError(
        f"the inputs have another structure than the example of the capture: {'; '.join(told)}.",
        rule="input-structure",
        fix=f"give the same containers and keys, or capture again. {_OFF}",
    )


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Enum):
        return str(value)
    return repr(value) if isinstance(value, _SHOWN) else type(value).__name__
