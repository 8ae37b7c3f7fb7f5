"""Outlier channel splitting before quantization: ``quantfx.split_outliers``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.fx import GraphModule

from quantfx.change_by_data import change_by_data
from quantfx.passes.capture.remove_dead_code import RemoveDeadCode
from quantfx.passes.fold.fold_constants import FoldConstants
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observe.equalize.record_outliers import RecordOutliers
from quantfx.passes.observe.equalize.split_outliers import SplitOutliers
from quantfx.passes.pipeline.pipeline import Pipeline

RECORD = Pipeline((RemoveDeadCode(), FoldConstants(), RecordOutliers()), name="record")


def split_outliers(
    model: Model,
    example_inputs: Examples,
    batches: Iterable[Any],
    *,
    share: float = 0.01,
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
    check_inputs: bool = True,
    compare: bool = True,
) -> GraphModule:
    """Return a graph that computes what ``model`` computes, whose linears read smaller outliers.

    Transformers have a few channels of activations that are many times as large as the others, and
    all channels of a tensor share one 8-bit scale. The largest channels are cut into equal parts,
    and the linears that read them get as many copies of their weights: see ``SplitOutliers``.
    Tensors that gain nothing on a held-out quarter of the data stay as they are.
    ``quantfx.passes.records_of`` reports the outcome of each.

    Give the graph to ``quantize`` with the same example, like any model. Each linear gets wider by
    ``share``, and reads its input through a loop that copies it.

    Args:
        model: As for ``quantize``; not changed.
        example_inputs: As for ``quantize``; give it the same.
        batches: As for ``calibrate``; with fewer than eight rows nothing is split.
        share: Channels to add to each tensor, as a share of its channels, rounded up to a multiple
            of eight channels.
        example_kwargs: Keyword arguments the model accepts.
        dynamic_shapes: As for ``quantize``.
        input_fn: Turns what ``batches`` yields into a batch.
        progress: Show a progress bar where the terminal allows it.
        check_inputs: As for ``quantize``.
        compare: As for ``quantize``.

    Raises:
        PipelineError: ``share`` is not between 0 and 1.
        CaptureError: as ``quantize``.
        CalibrationError: as ``calibrate``.
    """
    change = Pipeline((SplitOutliers(share),), name="split-outliers")
    given = given_model(model, example_inputs, example_kwargs, dynamic_shapes)
    return change_by_data(
        RECORD,
        change,
        given,
        batches,
        input_fn=input_fn,
        progress=progress,
        check_inputs=check_inputs,
        compare=compare,
    )
