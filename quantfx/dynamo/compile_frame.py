"""Compile one graph that Dynamo hands to a quantizing backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.dynamo.bound_weights import BoundWeights
from quantfx.dynamo.compile_report import GraphRecord
from quantfx.dynamo.explicit import observe_data
from quantfx.dynamo.frame_graph import FrameGraph, capture_frame
from quantfx.dynamo.free_sizes import free_sizes
from quantfx.dynamo.internals import current_frame, graph_inputs
from quantfx.dynamo.online_graph import Observing, OnlineGraph
from quantfx.dynamo.options import Options
from quantfx.passes.convert.repair.data_for import refuse_statistics
from quantfx.passes.errors import CalibrationError, CaptureError
from quantfx.passes.graph.remark import RuleRemark
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.report.contract import dtype_advice, find_skipped, planned_matches
from quantfx.patterns.errors import QuantfxError, QuantfxWarning


@dataclass(frozen=True)
class Plan:
    """How the graphs of one ``torch.compile`` are quantized.

    Attributes:
        backend: The backend.
        options: The options of the ``torch.compile``.
        batches: Calls to observe before a graph becomes int8; infinity only observes.
        observed_only: Refuse graphs that were never observed instead of observing them.
    """

    backend: Backend
    options: Options
    batches: float
    observed_only: bool = False

    def __post_init__(self) -> None:
        refuse_statistics(self.backend.convert_pipeline, "torch.compile")


def compile_frame(module: GraphModule, inputs: Sequence[Any], plan: Plan) -> Callable[..., Any]:
    """Return what to call in place of ``module``.

    Args:
        module: Dynamo's graph; not changed.
        inputs: Inputs from Dynamo.
        plan: How to quantize it.

    Raises:
        QuantfxError: the graph cannot be captured, calibrated or lowered, unless the options are
            not strict and it can stay float; or the kernels cannot run on this machine.
    """
    _require_here(plan.backend)
    frame = current_frame()
    try:
        captured = capture_frame(module, inputs, frame)
    except CaptureError as error:
        if plan.options.strict:
            raise
        pairs = zip(graph_inputs(module), inputs, strict=True)
        plan.options.state.add_float(
            BoundWeights(
                [(each.source, x) for each, x in pairs if each.static and isinstance(x, Tensor)]
            )
        )
        record = plan.options.state.record(frame.where)
        return _stay_float(module.forward, record, str(error), warn=True)
    record = plan.options.state.record(captured.where)
    if captured.training:
        plan.options.state.add_float(captured.weights)
        reason = f"{captured.training}: it computes in float; call model.eval() for int8"
        return _stay_float(module.forward, record, reason, warn=True)
    prepared = plan.backend.prepare(captured.graph, strict=False)
    record.vain = {each.rule: each.reason for each in remarks_of(prepared, RuleRemark)}
    if not planned_matches(prepared):
        plan.options.state.add_float(captured.weights)
        return _nothing_planned(captured, prepared, plan.backend, record)
    calibration, known = plan.options.state.calibration(plan.backend, captured, prepared)
    if known and not plan.observed_only:
        known = not calibration.restart_if_stale(prepared, captured.where)
    graph = OnlineGraph(
        Observing(captured, prepared, calibration),
        record,
        batches=plan.batches,
        strict=plan.options.strict,
        check_weights=plan.options.check_weights,
    )
    if plan.options.calibration is not None and not known:
        with plan.options.state.unless_it_fails(calibration):
            observe_data(captured, frame, prepared, calibration, plan.options)
    if plan.observed_only and calibration.needs_data and not calibration.count:
        plan.options.state.add_float(captured.weights)
        return _never_observed(captured, record, plan.options)
    plan.options.state.add_graph(graph)
    if graph.is_ready:
        graph.convert_here(inputs)
    return graph


def _require_here(backend: Backend) -> None:
    """Refuse a backend that cannot run on this machine, or under the caller's autocast.

    Raises:
        QuantfxError: says what can be done.
    """
    if backend.not_here:
        raise QuantfxError(
            f"torch.compile for '{backend.name}' cannot run on this machine: {backend.not_here}.",
            rule="not-here",
            site=backend.name,
            fix=(
                f"use quantfx.quantize(model, inputs, backend='{backend.name}').quantized, a q/dq "
                "graph that runs in float"
            ),
        )
    if backend.eager and torch.is_autocast_enabled("cpu"):
        message = f"the kernels of '{backend.name}' return float32, also under autocast"
        fix = "switch autocast off around the call"
        raise QuantfxError(message, rule="autocast-dtype", site=backend.name, fix=fix)


def _never_observed(
    captured: FrameGraph, record: GraphRecord, options: Options
) -> Callable[..., Any]:
    reason = "it never ran while calls were observed"
    fix = "observe a call that takes this path, or let it stay float with strict=False"
    values = [node.meta.get("val") for node in captured.graph.graph.find_nodes(op="placeholder")]
    if bool(free_sizes(values)) and captured.code in [
        each.code for each in options.state.calibrations
    ]:
        # Dynamo fixes all sizes in the first graph of a function, and frees those that change in
        # the next. The two differ wherever constants are computed from sizes, such as positions.
        reason = "only graphs of fixed sizes ran while calls were observed, and this has free ones"
        fix = (
            "observe with free sizes, from the first call on: quantfx.auto(model, dynamic=True), "
            "or torch.compile(model, dynamic=True, ...); torch keeps sizes of 0 and 1 apart, so "
            "observe other sizes as well"
        )
    if options.strict:
        message = f"the graph of {captured.where} has no ranges: {reason}"
        raise CalibrationError(message, rule="never-run", site=captured.where, fix=fix)
    return _stay_float(captured.run, record, reason, warn=True)


def _nothing_planned(
    captured: FrameGraph, prepared: GraphModule, backend: Backend, record: GraphRecord
) -> Callable[..., Any]:
    """Leave a graph float in which no template matches; warn of skipped operators."""
    record.report = backend.make_report(captured.graph, prepared, ())
    missed = find_skipped(prepared, backend.recipe)
    reason = "nothing to quantize"
    if missed:
        reason += f": {missed[0].node} ({missed[0].op}): {missed[0].message}"
    if advice := dtype_advice(prepared):
        reason += f"; {advice}"
    return _stay_float(captured.run, record, reason, warn=bool(missed))


def _stay_float(
    run: Callable[..., Any], record: GraphRecord, reason: str, *, warn: bool
) -> Callable[..., Any]:
    record.phase = "float"
    record.reason = reason
    if warn:
        warnings.warn(
            QuantfxWarning(
                f"{record.where} stays float: {reason}", rule="stays-float", site=record.where
            ),
            stacklevel=5,
        )
    return run
