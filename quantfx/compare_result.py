"""Compare a result with the float model that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from quantfx.backends.backend import Backend
from quantfx.decoding.quantize_cache import QuantizeCache
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.fold.compute_in_float32 import ComputeInFloat32
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.pipeline.record import records_of
from quantfx.passes.report.compare.compare_graphs import compare_graphs
from quantfx.passes.report.compare.comparison import Comparison
from quantfx.passes.report.compare.lockstep import common_nodes
from quantfx.passes.train.qat_module import QatModule
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
    """Return the comparison of every site, see ``Result.compare``.

    The float graph is made again as for the result, so that its operators have the same names.

    Args:
        result: The result to compare.
        batches: The batches to compare it on.
        inputs: The inputs that the model was captured with.
        model: The float model; None if it no longer exists.
        input_fn: Turns what ``batches`` yields into a batch.
        progress: Show a progress bar where the terminal allows it.

    Raises:
        QuantfxError: there is no float model, or it is not the result's.
        CaptureError: the float model cannot be captured.
        CalibrationError: there is no batch, or one does not fit the model.
    """
    require_float_cache(result.quantized, asked="compare")
    module, reference = float_graph(result.backend, model, inputs, asked="compare")
    # A node of the same name has the same shape.
    found = {node.name: _shape(node) for node in result.quantized.graph.nodes}
    for name, node in common_nodes(reference, result.quantized).items():
        mine, theirs = _shape(node), found[name]
        pairs = zip(mine, theirs, strict=False)
        sizes = (pair for pair in pairs if all(isinstance(each, int) for each in pair))
        if theirs and (len(mine) != len(theirs) or any(a != b for a, b in sizes)):
            raise QuantfxError(
                f"'{name}' is {list(mine)} in this model and {list(theirs)} in the result",
                rule="other-model",
                site=name,
                fix="give the model that the result was made of",
            )
    return compare_graphs(
        reference,
        result.quantized,
        batches,
        input_fn=input_fn,
        progress=progress,
        model=module,
    )


def _shape(node: Node) -> tuple[int | torch.SymInt, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def require_float_cache(quantized: GraphModule, *, asked: str) -> None:
    """Refuse a graph with an int8 cache, as the float model would take its integers for values.

    Args:
        quantized: The q/dq graph.
        asked: The result's method that needs the model, for the message.

    Raises:
        QuantfxError: the cache is int8.
    """
    if any(each.name == QuantizeCache.name for each in records_of(quantized)):
        raise QuantfxError(
            "the cache of this result is int8, and no float model takes or returns it",
            rule="no-float-model",
            site="cache",
            fix=f"quantize with cache='float', and ask that result: .{asked}(batches, model=model)",
        )


def float_graph(
    backend: Backend, model: Model | None, inputs: ExampleInputs, *, asked: str
) -> tuple[nn.Module | None, GraphModule]:
    """Return the module to compare with, and its graph with the result's names.

    A trained module rounds when called, so its graph stands for it.

    Args:
        backend: Backend of the result.
        model: The float model; None if it no longer exists.
        inputs: The inputs that the model was captured with.
        asked: The result's method that needs the model, for the message.

    Raises:
        QuantfxError: there is no float model.
        CaptureError: the float model cannot be captured.
    """
    if model is None:
        raise QuantfxError(
            "the float model of this result is gone, and a result holds no float weights",
            rule="no-float-model",
            fix=f"pass it: result.{asked}(batches, model=model)",
        )
    if isinstance(model, QatModule):
        return None, backend.finish(model)
    given = given_model(model, inputs.args, inputs.kwargs, inputs.dynamic_shapes)
    graph = capture_given(given, check_inputs=True, compare=False)
    reference = backend.prepare(graph, strict=False)
    # A model of half precision rounds more than its graph, which computes in float32.
    cast = [each for each in records_of(reference) if each.name == ComputeInFloat32.name]
    rounds = any(each.changed for each in cast)
    return None if rounds else given.module, reference
