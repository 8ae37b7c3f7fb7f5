"""Change a model by data before it is quantized: capture, record, change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.fx import GraphModule

from quantfx.passes.capture.capture import capture_given
from quantfx.passes.model.given import GivenModel
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.pipeline.pipeline import Pipeline


def change_by_data(
    record: Pipeline,
    change: Pipeline,
    given: GivenModel,
    batches: Iterable[Any],
    *,
    input_fn: Callable[[Any], Any] | None,
    progress: bool,
    check_inputs: bool,
    compare: bool,
) -> GraphModule:
    """Return the changed graph of a model; the arguments are those of ``quantfx.equalize``.

    ``record`` inserts recorders. ``change`` changes the graph by what they recorded, and removes
    them.
    """
    graph = capture_given(given, check_inputs=check_inputs, compare=compare)
    recorded = record.run(graph)
    calibrate(recorded, batches, input_fn=input_fn, progress=progress)
    return change.run(recorded)
