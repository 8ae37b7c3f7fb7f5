"""Run calibration data through a prepared module."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.errors import CalibrationError, InputError
from quantfx.passes.graph.facts import facts_of
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.batch_check import BatchCheck
from quantfx.passes.inputs.leaves import Inputs
from quantfx.passes.model.input_copies import copy_inputs, writes_to_inputs
from quantfx.passes.observers.fake_quantize import FakeQuantize
from quantfx.passes.observers.statistics.sample import keeping_sample


def calibrate(
    prepared: GraphModule,
    calibration: Iterable[Any],
    *,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
) -> int:
    """Run every batch of ``calibration`` through ``prepared`` without gradients; return how many.

    Buffers that the model changes as it runs are restored afterwards, and batches are not written
    to. A module prepared for training runs in eval mode without rounding, and starts training from
    the ranges found.

    Args:
        prepared: A module with observers, from a backend's ``prepare``.
        calibration: Batches; each is a tensor, a tuple of positional or a mapping of keyword
            arguments (a dict, a tokenizer's BatchEncoding, a dataclass or named tuple of
            arguments). If the graph is valid for one number of rows only, other batches are
            observed in pieces of that number, the last piece filled up with rows of its own batch;
            a warning says so once.
        input_fn: Turns an element of ``calibration`` into such a batch, e.g. ``lambda b: b[0]`` for
            a DataLoader of ``[input, label]``.
        progress: Show a progress bar where the terminal allows it.

    Raises:
        CalibrationError: there is no batch, or one has the wrong arguments, shapes or dtypes, or
            NaN or infinity reaches an observer; names the batch and the input.
    """
    if "observed" not in facts_of(prepared):
        raise CalibrationError(
            "the module has no observers", rule="not-prepared", fix="call prepare first"
        )
    _require_batches(calibration)
    check = BatchCheck(prepared)
    writes = writes_to_inputs(prepared)
    count = 0
    console = Console(stderr=True)
    with (
        preserved_state(prepared),
        keeping_sample(prepared),
        _calibrating(prepared),
        Progress(console=console, disable=not (progress and console.is_terminal)) as bar,
    ):
        task = bar.add_task(
            "calibrate", total=len(calibration) if isinstance(calibration, Sized) else None
        )
        for item in calibration:
            for inputs in check.inputs_of(item if input_fn is None else input_fn(item), count):
                _observe(prepared, copy_inputs(*inputs) if writes else inputs, check, count)
            count += 1
            bar.advance(task)
    if count == 0:
        raise CalibrationError(
            "calibration data is empty: the iterable gave 0 batches", rule="no-batches"
        )
    return count


def _require_batches(calibration: object) -> None:
    if not isinstance(calibration, Iterable):
        message = f"calibration data is a {type(calibration).__name__}, not an iterable of batches"
        raise CalibrationError(message, rule="calibration-form")
    if isinstance(calibration, Tensor):
        message = "calibration data is one tensor"
        raise CalibrationError(message, rule="calibration-form", fix="pass a list of batches, [x]")


def _observe(prepared: GraphModule, inputs: Inputs, check: BatchCheck, index: int) -> None:
    check.require_finite(inputs, index)
    try:
        with torch.no_grad():
            prepared(*inputs[0], **inputs[1])
    except InputError as error:
        raise error.within(f"batch {index}", CalibrationError) from None
    except CalibrationError as error:  # an observer saw a non-finite value
        found = check.non_finite(inputs)
        told = f"input '{found[0]}' holds NaN or infinity: " if found else ""
        raise error.within(f"batch {index}", CalibrationError, told=told) from None


@contextmanager
def _calibrating(prepared: GraphModule) -> Generator[None]:
    """Let fake-quantize modules only observe, in eval mode, whatever the module's present state."""
    observers = [each for each in prepared.modules() if isinstance(each, FakeQuantize)]
    training = [each for each in prepared.modules() if each.training]
    prepared.eval()
    for observer in observers:
        observer.calibrating = True
    try:
        yield
        for observer in observers:
            observer.end_calibration()
    finally:
        for observer in observers:
            observer.calibrating = False
        for module in training:
            module.training = True
