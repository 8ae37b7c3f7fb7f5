"""Compare a result with the float model that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from quantfx.passes.capture.capture import capture_given
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.report.compare.compare_graphs import compare_graphs
from quantfx.passes.report.compare.comparison import Comparison
from quantfx.patterns.errors import QuantfxError

if TYPE_CHECKING:
    from quantfx.result import Result


def compare_result(
    result: Result,
    batches: Iterable[Any],
    inputs: ExampleInputs,
    *,
    model: Model | None,
    input_fn: Callable[[Any], Any] | None,
    progress: bool,
) -> Comparison:
    """Return the numbers of every site, see ``Result.compare``.

    The float graph is made anew as it was made for the result, so that its operators have the same
    names.

    Args:
        result: What to compare.
        batches: What to compare it on.
        inputs: What the model was captured with.
        model: The float model; None if it is gone.
        input_fn: Turns what ``batches`` yields into a batch.
        progress: Show a progress bar where the terminal allows it.

    Raises:
        QuantfxError: there is no float model.
        CaptureError: the float model cannot be captured.
        CalibrationError: there is no batch, or one does not fit the model.
    """
    if model is None:
        raise QuantfxError(
            "the float model of this result is gone, and a result holds no float weights",
            rule="no-float-model",
            fix="pass it: result.compare(batches, model=model)",
        )
    given = given_model(model, inputs.args, inputs.kwargs, inputs.dynamic_shapes)
    graph = capture_given(given, check_inputs=True, compare=False)
    reference = result.backend.prepare(graph, strict=False)
    return compare_graphs(
        reference,
        result.quantized,
        batches,
        input_fn=input_fn,
        progress=progress,
        model=given.module,
    )
