"""Lower a q/dq graph that Dynamo hands to backend ``quantfx_lower``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import GraphModule

from quantfx import backends
from quantfx.backends.checks.lowering import complain
from quantfx.dynamo.frame_graph import capture_frame
from quantfx.dynamo.int8_graph import compile_here, in_place_of, lower_quantized
from quantfx.dynamo.internals import current_frame
from quantfx.dynamo.options import Options
from quantfx.passes.errors import ContractError
from quantfx.passes.graph.facts import facts_of, set_facts
from quantfx.passes.lower.read_plan import ReadPlan
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.report.contract import planned_matches
from quantfx.passes.report.report import Report

_REDUCED = (
    "Quantize with 7-bit activations, by get_default_x86_inductor_quantization_config("
    "reduce_range=True), whose sums stay in range, or quantize the float model with "
    "quantfx.quantize, which bounds the weights instead"
)


def lower_frame(module: GraphModule, inputs: Sequence[Any], options: Options) -> Callable[..., Any]:
    """Return the int8 code of a q/dq graph, on oneDNN's kernels.

    Args:
        module: Dynamo's graph; not changed.
        inputs: Inputs from Dynamo.
        options: The options of the ``torch.compile``.

    Raises:
        CaptureError: the graph cannot be expressed in ATen operators.
        ContractError: nothing in it is quantized, or a site misses its kernel or would saturate on
            this CPU; a warning unless ``strict``.
    """
    captured = capture_frame(module, inputs, current_frame(), all_static=True)
    record = options.state.record(captured.where)
    backend = backends.get("x86")
    set_facts(captured.graph, facts_of(captured.graph) | {"qdq"})
    quantized = Pipeline((ReadPlan(),)).run(captured.graph, backend.context)
    if not planned_matches(quantized):
        record.phase, record.reason = "float", "no operator of it reads dequantized tensors"
        error = ContractError(
            f"{record.where}: nothing to lower: {record.reason}.",
            rule="nothing-to-lower",
            site=record.where,
            fix=(
                "pass a q/dq graph, such as quantfx.quantize(...).quantized; for a float model "
                "there is backend 'quantfx_x86'"
            ),
        )
        complain(error, strict=options.strict)
        return captured.run

    def note(report: Report) -> None:
        record.report = report

    frame = lower_quantized(captured, quantized, backend, strict=options.strict, cure=_REDUCED)
    taken = [inputs[index] for index in captured.inputs]
    run = compile_here(frame, taken, note, strict=options.strict)
    record.phase = "int8"
    return in_place_of(captured, run, captured.weights if options.check_weights else None)
