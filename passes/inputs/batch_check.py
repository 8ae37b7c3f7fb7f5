"""Check a calibration batch against the graph's inputs, and make it fit where that is correct."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.errors import CalibrationError
from quantfx.passes.inputs.call_arguments import FORMS, arguments_of, missing_names, unknown_names
from quantfx.passes.inputs.contract import InputForm, contract_of
from quantfx.passes.inputs.fits_traced import equal_values
from quantfx.passes.inputs.leaves import Inputs, leaves_of, map_named_leaves
from quantfx.passes.inputs.row_pieces import RowPieces, row_pieces
from quantfx.passes.inputs.shapes_line import other_dimensions, shapes_line
from quantfx.patterns.errors import warn


class BatchCheck:
    """Checks batches against the inputs that a graph was captured with.

    Args:
        module: The graph.
    """

    def __init__(self, module: GraphModule) -> None:
        self._signature = inspect.signature(module.forward)
        values = [node.meta.get("val") for node in module.graph.find_nodes(op="placeholder")]
        self._contract = contract_of(module)
        if self._contract is None:
            names = [str(node.target) for node in module.graph.find_nodes(op="placeholder")]
            self._forms = [traced_form(*pair) for pair in zip(names, values, strict=True)]
        else:
            self._forms = list(self._contract.forms)
        self._values = values
        self._told = False

    def inputs_of(self, batch: Any, index: int) -> Iterator[Inputs]:
        """Yield the arguments of each call for a batch: one call, or one call per piece.

        Raises:
            CalibrationError: the batch has wrong arguments, shapes or dtypes; names the batch, the
                input and the fix.
        """
        args, kwargs = batch_arguments(batch, index, self._signature)
        arguments = self._signature.bind(*args, **kwargs)
        leaves = self._leaves(args, kwargs, index)
        for form, value in zip(self._forms, self._values, strict=True):
            given = leaves[form.path]
            if form.dtype is not None:
                check_tensor(given, form, index)
            elif isinstance(value, (bool, int, float)) and not equal_values(given, value):
                message = f"batch {index}: input '{form.path}' is {given}, captured as {value}"
                raise CalibrationError(message, rule="input-value", site=form.path)
        forms = [form for form in self._forms if form.dtype is not None]
        if all(not other_dimensions(form, leaves[form.path]) for form in forms):
            yield args, kwargs
            return
        pieces = None if self._contract is None else row_pieces(forms, leaves)
        if pieces is None:
            self._refuse_shape(forms, leaves, arguments.arguments, index)
        self._tell(pieces, arguments.arguments)
        yield from _cut(arguments, pieces)

    def non_finite(self, inputs: Inputs) -> list[str]:
        """Return the inputs that hold NaN or infinity."""
        leaves = leaves_of(self._signature, *inputs)
        return [path for path, value in leaves if not all_finite(value)]

    def require_finite(self, inputs: Inputs, index: int) -> None:
        """Refuse NaN and infinity in the inputs of a graph without quantfx's observers.

        quantfx's observers refuse them only where they matter: a mask may be infinite.

        Raises:
            CalibrationError: names the batch and the input.
        """
        if self._contract is None and (found := self.non_finite(inputs)):
            message = f"batch {index}: input '{found[0]}' holds NaN or infinity"
            raise CalibrationError(message, rule="not-finite", site=found[0])

    def _leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any], index: int) -> dict[str, Any]:
        found = leaves_of(self._signature, args, kwargs)
        if self._contract is None and len(found) == len(self._forms):
            found = [(form.path, leaf) for form, (_, leaf) in zip(self._forms, found, strict=True)]
        leaves = dict(found)
        expected = {form.path for form in self._forms}
        if leaves.keys() != expected:
            more, less = sorted(leaves.keys() - expected), sorted(expected - leaves.keys())
            told = [f"lacks {', '.join(less)}"] * bool(less)
            told += [f"holds {', '.join(more)}, which the graph does not take"] * bool(more)
            message = f"batch {index} {' and '.join(told)}"
            fix = "give the containers and keys of the example"
            raise CalibrationError(message, rule="batch-names", site=f"batch {index}", fix=fix)
        return leaves

    def _refuse_shape(
        self,
        forms: Sequence[InputForm],
        leaves: Mapping[str, Any],
        arguments: Mapping[str, Any],
        index: int,
    ) -> NoReturn:
        form = next(form for form in forms if other_dimensions(form, leaves[form.path]))
        line = "dynamic_shapes="
        if self._contract is not None:
            line = shapes_line(self._contract, arguments)
        message = f"{_other_shape(leaves[form.path], form, index)}"
        fix = f"let the size vary with {line}, or pad or crop the batches with input_fn="
        raise CalibrationError(message, rule="input-shape", site=form.path, fix=fix)

    def _tell(self, pieces: RowPieces, arguments: Mapping[str, Any]) -> None:
        """Warn once that batches are cut, since the graph itself will refuse such batches."""
        if self._told:
            return
        self._told = True
        line = "" if self._contract is None else f": {shapes_line(self._contract, arguments)}"
        warn(
            f"a calibration batch has {pieces.rows} rows, but the graph is valid for "
            f"{pieces.size} only: the batch was observed in pieces of {pieces.size}, filled up "
            "with its own rows. Calls with any other number of rows are refused, unless "
            f"that size is free when the model is captured{line}",
            rule="other-rows",
            stacklevel=4,
        )


def batch_arguments(batch: Any, index: int, signature: inspect.Signature) -> Inputs:
    """Return the positional and keyword arguments that a batch stands for.

    Args:
        batch: What a loader yields.
        index: Index of the batch.
        signature: The signature that the arguments must fit.

    Raises:
        CalibrationError: the batch fits no form; names its type or the argument, and ``index``.
    """
    found = arguments_of(batch, signature.parameters)
    if found is None:
        message = f"batch {index} is a {type(batch).__name__}: expected {FORMS}"
        fix = "use input_fn= to convert"
        raise CalibrationError(message, rule="batch-form", site=f"batch {index}", fix=fix)
    args, kwargs = found
    forward = f"forward({', '.join(signature.parameters)})"
    known = [name for name in signature.parameters if name in kwargs]
    if unknown := unknown_names(signature, kwargs):
        listed = ", ".join(f"'{name}': {_read(batch, name)}" for name in known)
        names = ", ".join(f"'{name}'" for name in unknown)
        verb = "drop it" if len(unknown) == 1 else "drop them"
        way_out = f"{verb} with input_fn=lambda batch: {{{listed}}}"
        if not known:
            way_out = f"rename or pick what it takes with input_fn=, or, if {forward} takes the "
            way_out += "whole, wrap it: input_fn=lambda batch: (batch,)"
        message = f"batch {index} holds {names}, which {forward} does not take"
        raise CalibrationError(message, rule="batch-names", site=f"batch {index}", fix=way_out)
    missing = missing_names(signature, args, kwargs)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        listed = ", ".join(f"'{name}'" for name in missing)
        told = f"it lacks {listed}" if missing else str(error)
        raise CalibrationError(
            f"batch {index} does not fit {forward}: {told}.",
            rule="batch-names",
            site=f"batch {index}",
            fix=_advice(args, signature),
        ) from None
    return args, kwargs


def _read(batch: Any, name: str) -> str:
    return f"batch[{name!r}]" if isinstance(batch, Mapping) else f"batch.{name}"


def _advice(args: tuple[Any, ...], signature: inspect.Signature) -> str:
    taken = len(signature.parameters)
    if len(args) <= taken:
        return "give every argument of the example in each batch, defaults too"
    picked = "batch[0]" if taken == 1 else f"batch[:{taken}]"
    return f"pass input_fn=lambda batch: {picked} with a loader of (input, label) pairs"


def traced_form(name: str, value: object) -> InputForm:
    """Return the form of an input of a graph that has no contract."""
    if not isinstance(value, Tensor):
        return InputForm(name, value=value)
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return InputForm(name, dtype=value.dtype, device=str(value.device), shape=shape)


def check_tensor(given: object, form: InputForm, index: int) -> None:
    """Check that one input of a batch is a tensor of the dtype and rank that the graph takes.

    Raises:
        CalibrationError: it is not; names the batch and the input.
    """
    where = f"batch {index}: input '{form.path}'"
    if not isinstance(given, Tensor):
        raise CalibrationError(
            f"{where} is a {type(given).__name__}, not a tensor", rule="input-type", site=form.path
        )
    if given.dtype != form.dtype:
        message = f"{where} is {given.dtype}, captured with {form.dtype}"
        raise CalibrationError(message, rule="input-dtype", site=form.path)
    if given.dim() != len(form.shape):
        message = f"{_other_shape(given, form, index)}"
        fix = "give as many dimensions, or capture again with an example like it"
        raise CalibrationError(message, rule="input-shape", site=form.path, fix=fix)


def require_shape(given: Tensor, form: InputForm, index: int, way_out: str) -> None:
    """Refuse a tensor of a size that the graph does not take.

    Raises:
        CalibrationError: names the batch, the input and the ``way_out``.
    """
    if other_dimensions(form, given):
        raise CalibrationError(
            _other_shape(given, form, index), rule="input-shape", site=form.path, fix=way_out
        )


def _other_shape(given: Tensor, form: InputForm, index: int) -> str:
    sizes = ["any" if isinstance(size, str) else str(size) for size in form.shape]
    shape, captured = tuple(given.shape), f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
    return f"batch {index}: input '{form.path}' has shape {shape}, captured with {captured}"


def _cut(arguments: inspect.BoundArguments, pieces: RowPieces) -> Iterator[Inputs]:
    parts: dict[str, Iterator[Tensor]] = {}

    def part(path: str, leaf: Any) -> Any:
        if path not in pieces.paths:
            return leaf
        return next(parts.setdefault(path, pieces.of(leaf)))

    whole = dict(arguments.arguments)
    for _ in range(0, pieces.rows, pieces.size):
        arguments.arguments.update(
            (name, map_named_leaves(part, name, value)) for name, value in whole.items()
        )
        yield arguments.args, arguments.kwargs


def all_finite(value: object) -> bool:
    """Whether a value holds neither NaN nor infinity, if it is a tensor of floats."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value).all())
