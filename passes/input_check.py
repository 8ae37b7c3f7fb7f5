"""Hold a call's inputs against what its graph takes for granted of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from quantfx.passes.errors import InputError
from quantfx.passes.input_contract import InputContract, InputForm, shape_text
from quantfx.passes.inputs import leaves_in, leaves_of
from quantfx.passes.size_expression import size_names, size_value

_REMEMBERED = 256
_FORM = attrgetter("dtype", "shape", "is_cpu")
_OFF = "check_inputs=False when capturing takes the checks out"

_EMPTY = (
    "leave out calls with empty inputs: the model computes something else of those, a kernel fails "
    "on them, or its config has ranges found in each call, which no elements have"
)


class InputCheck:
    """Checks calls of one graph.

    The usual call, all arguments in place and each a tensor or a plain value, is compared with one
    that was looked at before, in loops of C. Nested and named arguments, new sizes
    and whatever differs are looked at by name.

    Attributes:
        contract: What the graph takes for granted.

    Args:
        contract: What the graph takes for granted.
        signature: Of its forward.
    """

    def __init__(self, contract: InputContract, signature: inspect.Signature) -> None:
        self.contract = contract
        self._signature = signature
        self._flat = all(
            form.path.isidentifier() and not form.free and form.device in ("", "cpu")
            for form in contract.forms
        )
        forms = contract.forms
        self._tensors = [place for place, form in enumerate(forms) if form.dtype is not None]
        self._values = [
            (place, form.value) for place, form in enumerate(forms) if form.dtype is None
        ]
        self._kinds = [Tensor] * len(self._tensors)
        # By the shape of the first input with a free size: a call's inputs mostly vary with it.
        free = (place for place in self._tensors if forms[place].free_dimensions)
        self._varying = next(free, None)
        self._known: dict[torch.Size | None, list[tuple[torch.dtype, torch.Size, bool]]] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check the arguments of a call.

        Raises:
            InputError: they are none that the graph holds for; names the input, and the way out.
        """
        flat = self._flat and not kwargs and len(args) == len(self.contract.forms)
        if flat and self._was_looked_at(args):
            return
        self._look(args, kwargs)
        if flat and all(type(each) is Tensor for each in self._given(args)):
            self._remember(args)

    def _given(self, args: tuple[Any, ...]) -> Sequence[Any]:
        """The tensors among arguments in place."""
        return [args[place] for place in self._tensors] if self._values else args

    def _remember(self, args: tuple[Any, ...]) -> None:
        tensors = self._given(args)
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
        tensors = self._given(args)
        if list(map(type, tensors)) != self._kinds:
            return False
        known = self._known.get(self._key(args))
        return known is not None and list(map(_FORM, tensors)) == known

    def _look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            leaves = leaves_of(self._signature, args, kwargs)
        except TypeError as error:
            names = ", ".join(self._signature.parameters)
            raise InputError(
                f"the graph was captured with the arguments ({names}): {error}. Give each of them, "
                "defaults too, or capture again without"
            ) from None
        given = dict(leaves)
        expected = {form.path: form for form in self.contract.forms}
        if given.keys() != expected.keys():
            _refuse_structure(set(given), set(expected))
        sizes: dict[str, int] = {}
        for path, form in expected.items():
            self._check_leaf(given[path], form, sizes)
        self._check_sizes(given, sizes)

    def _check_leaf(self, value: object, form: InputForm, sizes: dict[str, int]) -> None:
        if form.dtype is not None:
            _check_tensor(value, form, sizes)
        elif form.free:
            if type(value) not in (int, float):
                _refuse(form.path, f"is {_told(value)}", "a number")
            if isinstance(value, int) and form.free.isidentifier():
                sizes.setdefault(form.free, value)
        elif not _equal(value, form.value):
            raise InputError(
                f"input '{form.path}' is {_told(value)}, and the graph was captured with "
                f"{_told(form.value)}, which it computes with whatever is given: capture again "
                f"with {_told(value)}, or make it a tensor. {_OFF}"
            )

    def _check_sizes(self, given: dict[str, object], sizes: dict[str, int]) -> None:
        if any(isinstance(size, torch.SymInt) for size in sizes.values()):
            return  # traced by a compiler, which guards them itself
        self._solve(given, sizes)
        self._check_ranges(sizes)
        for form in self.contract.forms:
            for place, size in enumerate(form.shape):
                if isinstance(size, str):
                    self._check_expression(given[form.path], form, place, size, sizes)
        if any(size > 1 for size in sizes.values()):  # 1 was looked at by itself
            for condition in self.contract.conditions:
                if not size_value(condition, sizes):
                    shown = ", ".join(f"{name} = {size}" for name, size in sizes.items())
                    raise InputError(
                        f"the graph holds where {condition}, and the inputs have {shown}: capture "
                        f"again with an example of these sizes. {_OFF}"
                    )

    def _check_ranges(self, sizes: dict[str, int]) -> None:
        for name, (low, high) in self.contract.ranges.items():
            size = sizes.get(name)
            if size is not None and (size < low or (high is not None and size > high)):
                least = f"at least {low}" if high is None else f"{low} to {high}"
                where = next(f for f in self.contract.forms if f.mentions(name))
                _refuse(
                    where.path,
                    f"makes {name} = {size}",
                    f"{least}, in the shape {shape_text(where)}",
                    _EMPTY if size == 0 else "capture again with bounds that include it",
                )

    def _solve(self, given: dict[str, Any], sizes: dict[str, int]) -> None:
        """Find sizes that no dimension has by itself, as s0 in 2*s0; torch has linear ones only."""
        for form in self.contract.forms:
            for place, size in enumerate(form.shape):
                names = size_names(size) - set(sizes) if isinstance(size, str) else set[str]()
                if isinstance(size, str) and len(names) == 1:
                    (name,) = names
                    offset = int(size_value(size, {**sizes, name: 0}))
                    factor = int(size_value(size, {**sizes, name: 1})) - offset
                    sizes[name] = (given[form.path].shape[place] - offset) // (factor or 1)

    def _check_expression(
        self, value: Any, form: InputForm, place: int, size: str, sizes: dict[str, int]
    ) -> None:
        expected = size_value(size, sizes)
        if value.shape[place] != expected:
            _refuse(
                form.path,
                f"has size {value.shape[place]} in dimension {place}",
                f"{expected}, as other inputs have it" + ("" if size in sizes else f" ({size})"),
                "give inputs that agree",
            )


def fits_traced(contract: InputContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether Dynamo, which traces this, sees inputs that fit; relations of sizes it guards itself.

    Nothing is remembered: Dynamo would guard on it, and compile anew.
    """
    names = contract.arguments[len(args) :]
    if len(kwargs) != len(names) or any(name not in kwargs for name in names):
        return False
    leaves = leaves_in((args, [kwargs[name] for name in names]))
    if len(leaves) != len(contract.forms):
        return False
    for leaf, form in zip(leaves, contract.forms, strict=True):
        if not isinstance(leaf, Tensor):
            if form.dtype is not None or not (form.free or _equal(leaf, form.value)):
                return False
        elif (
            leaf.dtype != form.dtype
            or leaf.dim() != len(form.shape)
            or any(
                isinstance(size, int) and leaf.shape[place] != size
                for place, size in enumerate(form.shape)
            )
        ):
            return False
    return True


def _check_tensor(value: object, form: InputForm, sizes: dict[str, int]) -> None:
    if not isinstance(value, Tensor):
        _refuse(form.path, f"is {_told(value)}", "a tensor")
    if value.dtype != form.dtype:
        _refuse(form.path, f"is {value.dtype}", str(form.dtype), f"convert it to {form.dtype}")
    # Fake tensors of a device that is not here stand for a graph moved to it.
    if type(value) in (Tensor, nn.Parameter) and str(value.device) != form.device:
        _refuse(form.path, f"is on {value.device}", form.device, f"move it to {form.device}")
    fits = value.dim() == len(form.shape) and all(
        isinstance(size, str) or size == actual
        for size, actual in zip(form.shape, value.shape, strict=True)
    )
    if not fits:
        _refuse(
            form.path,
            f"has shape {tuple(value.shape)}",
            shape_text(form),
            _way_out(value, form),
        )
    for size, actual in zip(form.shape, value.shape, strict=True):
        if isinstance(size, str) and size.isidentifier():
            sizes.setdefault(size, actual)


def _way_out(value: Tensor, form: InputForm) -> str:
    if value.dim() != len(form.shape):
        return "capture again with an example like it"
    dims = ", ".join(
        f"{place}: Dim.AUTO"
        for place, (size, actual) in enumerate(zip(form.shape, value.shape, strict=True))
        if isinstance(size, int) and size != actual
    )
    argument = form.path.partition("[")[0]
    free = f"{{'{argument}': {{{dims}}}}}" if form.path == argument else f"{{{dims}}} for it"
    return (
        f"the graph computes with that size: capture again with dynamic_shapes={free} (from "
        "torch.export import Dim), or with an example of that shape"
    )


def _refuse(
    path: str, found: str, expected: str, way_out: str = "capture again with an example like it"
) -> NoReturn:
    raise InputError(
        f"input '{path}' {found}, and the graph was captured for {expected}: {way_out}. {_OFF}"
    )


def _refuse_structure(given: set[str], expected: set[str]) -> NoReturn:
    more, less = sorted(given - expected), sorted(expected - given)
    told = [f"it has {', '.join(more)} more"] * bool(more)
    told += [f"it lacks {', '.join(less)}"] * bool(less)
    raise InputError(
        f"the inputs have another structure than those the graph was captured with: "
        f"{'; '.join(told)}. Give the same containers and keys, or capture again. {_OFF}"
    )


def _equal(value: object, captured: object) -> bool:
    if type(value) is not type(captured):
        return False
    if isinstance(value, float) and isinstance(captured, float) and math.isnan(captured):
        return math.isnan(value)
    return bool(value == captured)


def _told(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
