"""Change a model by data before it is quantized: capture, record, change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule

from quantfx.passes.capture.capture import capture_given
from quantfx.passes.model.given import GivenModel
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class DataChange:
    """Two pipelines, between which the graph runs on data.

    Attributes:
        record: Inserts recorders.
        change: Changes the graph by what they recorded, and removes them.
    """

    record: Pipeline
    change: Pipeline

    def run(
        self,
        given: GivenModel,
        batches: Iterable[Any],
        *,
        input_fn: Callable[[Any], Any] | None,
        progress: bool,
        check_inputs: bool,
        compare: bool,
    ) -> GraphModule:
        """Return the changed graph of a model; the arguments are those of ``quantfx.equalize``."""
        graph = capture_given(given, check_inputs=check_inputs, compare=compare)
        recorded = self.record.run(graph)
        calibrate(recorded, batches, input_fn=input_fn, progress=progress)
        return self.change.run(recorded)
