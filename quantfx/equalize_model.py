"""Cross-layer equalization before quantization: ``quantfx.equalize``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.fx import GraphModule

from quantfx.change_by_data import change_by_data
from quantfx.passes.capture.remove_dead_code import RemoveDeadCode
from quantfx.passes.fold.fold_batch_norm import FoldBatchNorm
from quantfx.passes.fold.fold_constants import FoldConstants
from quantfx.passes.fold.fold_scales import FoldScales
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observe.equalize.equalize_layers import EqualizeLayers
from quantfx.passes.observe.equalize.record_pairs import RecordPairs
from quantfx.passes.pipeline.pipeline import Pipeline

# The folds that x86 runs before its templates, so that a batch norm hides no activation.
RECORD = Pipeline(
    (RemoveDeadCode(), FoldConstants(), FoldBatchNorm(), FoldScales(), RecordPairs()),
    name="record",
)


def equalize(
    model: Model,
    example_inputs: Examples,
    batches: Iterable[Any],
    *,
    alpha: float = 0.5,
    rows: int = 1024,
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
    check_inputs: bool = True,
    compare: bool = True,
) -> GraphModule:
    """Return a graph that computes what ``model`` computes, with channels of more even range.

    If one layer feeds another and every operator between them passes channel factors on (relu,
    leaky relu, prelu, pools, padding with zeros, views), factors move from the first layer's output
    channels into the second's input channels, so that one 8-bit scale serves all channels: see
    ``EqualizeLayers``. Pairs that gain nothing on a held-out quarter of the data stay as they are.
    ``quantfx.passes.records_of`` reports the outcome of each pair, and why other layers are no
    pair.

    Give the graph to ``quantize`` with the same example, like any model. Modules keep their names.
    A graph with control flow goes to ``backend.prepare`` instead.

    Args:
        model: As for ``quantize``; not changed.
        example_inputs: As for ``quantize``; give it the same.
        batches: As for ``calibrate``; with fewer than eight rows nothing is equalized.
        alpha: 0 evens out the weights, 1 the activations.
        rows: Least number of values per channel to choose factors by: pairs with fewer values in
            the data stay as they are.
        example_kwargs: Keyword arguments the model accepts.
        dynamic_shapes: As for ``quantize``.
        input_fn: Turns what ``batches`` yields into a batch.
        progress: Show a progress bar where the terminal allows it.
        check_inputs: As for ``quantize``.
        compare: As for ``quantize``.

    Raises:
        PipelineError: ``alpha`` is not between 0 and 1, or ``rows`` not positive.
        CaptureError: as ``quantize``.
        CalibrationError: as ``calibrate``.
    """
    change = Pipeline((EqualizeLayers(alpha, rows),), name="equalize")
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
