"""Run calibration data through a prepared module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.errors import CalibrationError, InputError
from quantfx.passes.fake_quantize import FakeQuantize
from quantfx.passes.fits_traced import equal_values
from quantfx.passes.input_contract import contract_of
from quantfx.passes.input_copies import copied_inputs, writes_to_inputs
from quantfx.passes.inputs import input_leaves
from quantfx.passes.pass_record import facts_of
from quantfx.passes.state import preserved_state


def calibrate(
    prepared: GraphModule,
    data: Iterable[Any],
    *,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
) -> int:
    """Run every batch of ``data`` through ``prepared`` without gradients; return how many.

    Buffers that the model changes as it runs are put back afterwards, and batches are not written
    to. A module prepared for training runs in eval mode without rounding, and starts its training
    from the ranges found.

    Args:
        prepared: A module with observers, from a backend's ``prepare``.
        data: Batches; each is a tensor, a tuple of positional or a dict of keyword arguments.
        input_fn: Turns what ``data`` yields into such a batch, e.g. ``lambda b: b[0]`` for a
            DataLoader of ``[input, label]``.
        progress: Show a progress bar where the terminal allows it.

    Raises:
        CalibrationError: there is no batch, or one has the wrong arguments, shapes or dtypes, or
            holds NaN or infinity; names the batch and the input.
    """
    if "observed" not in facts_of(prepared):
        raise CalibrationError("the module has no observers: call prepare first")
    if not isinstance(data, Iterable):
        raise CalibrationError(
            f"calibration data is a {type(data).__name__}, not an iterable of batches"
        )
    if isinstance(data, Tensor):
        raise CalibrationError("calibration data is one tensor: pass a list of batches, [x]")
    check = _Signature(prepared)
    writes = writes_to_inputs(prepared)
    count = 0
    console = Console(stderr=True)
    with (
        preserved_state(prepared),
        _calibrating(prepared),
        Progress(console=console, disable=not (progress and console.is_terminal)) as bar,
    ):
        task = bar.add_task("calibrate", total=len(data) if isinstance(data, Sized) else None)
        for item in data:
            args, kwargs = batch_arguments(item if input_fn is None else input_fn(item), count)
            check(args, kwargs, count)
            inputs = copied_inputs(args, kwargs) if writes else (args, kwargs)
            try:
                with torch.no_grad():
                    prepared(*inputs[0], **inputs[1])
            except InputError as error:
                raise CalibrationError(f"batch {count}: {error}") from None
            count += 1
            bar.advance(task)
    if count == 0:
        raise CalibrationError("calibration data is empty: the iterable gave 0 batches")
    return count


@contextmanager
def _calibrating(prepared: GraphModule) -> Generator[None]:
    """Let fake-quantize modules observe only, in eval mode, however the module stands."""
    observers = [each for each in prepared.modules() if isinstance(each, FakeQuantize)]
    training = [each for each in prepared.modules() if each.training]
    prepared.eval()
    for observer in observers:
        observer.calibrating = True
    try:
        yield
        for observer in observers:
            observer.calibrated()
    finally:
        for observer in observers:
            observer.calibrating = False
        for module in training:
            module.training = True


def batch_arguments(batch: Any, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments that a batch stands for.

    Raises:
        CalibrationError: it is none: names its type and ``index``.
    """
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, (tuple, list)):
        return tuple(batch), {}
    if isinstance(batch, dict):
        return (), {str(key): value for key, value in batch.items()}
    raise CalibrationError(
        f"batch {index} is a {type(batch).__name__}: expected a tensor, a tuple of positional "
        "arguments or a dict of keyword arguments; use input_fn= to convert"
    )


class _Signature:
    """Checks a batch against the inputs the graph was captured with."""

    def __init__(self, module: GraphModule) -> None:
        self._module = module
        placeholders = module.graph.find_nodes(op="placeholder")
        contract = contract_of(module)
        self._by_name = contract is not None
        values = [node.meta.get("val") for node in placeholders]
        if contract is None:
            names = [str(node.target) for node in placeholders]
            self._free = dict.fromkeys(names, frozenset[int]())
        else:
            names = [form.path for form in contract.forms]
            self._free = {form.path: form.free_dimensions for form in contract.forms}
        self._expected = dict(zip(names, values, strict=True))

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any], index: int) -> None:
        try:
            leaves = input_leaves(self._module, args, kwargs)
        except TypeError as error:
            names = ", ".join(inspect.signature(self._module.forward).parameters)
            raise CalibrationError(
                f"batch {index} does not fit forward({names}): {error}. A loader of (input, label) "
                "pairs takes input_fn=lambda batch: batch[0]"
            ) from None
        if not self._by_name:
            leaves = list(zip(self._expected, (leaf for _, leaf in leaves), strict=False))
        given = dict(leaves)
        if given.keys() != self._expected.keys():
            raise CalibrationError(
                f"batch {index} holds {sorted(given)}, the model takes {sorted(self._expected)}"
            )
        for name, expected in self._expected.items():
            if isinstance(expected, Tensor):
                check_tensor(given[name], expected, name, index, self._free[name])
            elif isinstance(expected, (bool, int, float)) and not equal_values(
                given[name], expected
            ):
                raise CalibrationError(
                    f"batch {index}: input '{name}' is {given[name]}, captured as {expected}"
                )


def check_tensor(
    given: object,
    expected: Tensor,
    name: str,
    index: int,
    varying: frozenset[int] = frozenset(),
    free: str = "free a dimension with dynamic_shapes=",
) -> None:
    """Check one input of a batch against what the graph was made for.

    Args:
        given: What the batch holds.
        expected: A tensor of the right dtype and shape; sizes that are no numbers are free.
        name: Of the input.
        index: Of the batch.
        varying: Dimensions whose size is free.
        free: How to let a size vary, for the message.

    Raises:
        CalibrationError: it is no tensor, of another dtype or shape, or holds NaN or infinity.
    """
    if not isinstance(given, Tensor):
        raise CalibrationError(
            f"batch {index}: input '{name}' is a {type(given).__name__}, not a tensor"
        )
    if given.dtype != expected.dtype:
        raise CalibrationError(
            f"batch {index}: input '{name}' is {given.dtype}, captured with {expected.dtype}"
        )
    fits = given.dim() == expected.dim() and all(
        not isinstance(size, int) or size == actual or place in varying
        for place, (size, actual) in enumerate(zip(expected.shape, given.shape, strict=True))
    )
    if not fits:
        raise CalibrationError(
            f"batch {index}: input '{name}' has shape {list(given.shape)}, captured with "
            f"{[str(size) for size in expected.shape]}; {free}"
        )
    if not all_finite(given):
        raise CalibrationError(f"batch {index}: input '{name}' holds NaN or infinity")


def all_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
