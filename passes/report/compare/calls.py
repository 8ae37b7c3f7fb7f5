"""The calls that batches stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import track
from torch.fx import GraphModule

from quantfx.passes.errors import CalibrationError
from quantfx.passes.inputs.batch_check import BatchCheck
from quantfx.passes.inputs.leaves import Inputs


def calls_of(
    module: GraphModule,
    batches: Iterable[Any],
    what: str,
    *,
    input_fn: Callable[[Any], Any] | None,
    progress: bool,
) -> Iterator[Inputs]:
    """Yield the calls that batches stand for.

    Args:
        module: The module to call.
        batches: In the forms that ``calibrate`` takes.
        what: Purpose of the calls, for the progress bar and errors.
        input_fn: Turns an element of ``batches`` into such a batch.
        progress: Show a progress bar where the terminal allows it.

    Raises:
        CalibrationError: there is no batch, or one does not fit the model.
    """
    check = BatchCheck(module)
    console = Console(stderr=True)
    shown = progress and console.is_terminal
    index = -1
    for index, item in enumerate(track(batches, what, console=console, disable=not shown)):
        yield from check.inputs_of(item if input_fn is None else input_fn(item), index)
    if index < 0:
        message = f"there is nothing for {what}: the iterable gave 0 batches"
        raise CalibrationError(message, rule="no-batches")
