"""Calibration data that comes with the options: observed before the first call."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from itertools import takewhile
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.dynamo.calibration import Calibration, named
from quantfx.dynamo.frame_graph import FrameGraph
from quantfx.dynamo.internals import Frame
from quantfx.dynamo.options import Options
from quantfx.passes.errors import CalibrationError
from quantfx.passes.inputs.batch_check import (
    batch_arguments,
    check_tensor,
    require_shape,
    traced_form,
)

_OTHERWISE = (
    "observe calls with options={'calibration_batches': N}, or use quantfx.auto(model), or "
    "torch.compile(..., fullgraph=True) to see what breaks the graph"
)
_FREE = "free a size with torch.compile(..., dynamic=True)"


def observe_data(
    captured: FrameGraph,
    frame: Frame,
    prepared: GraphModule,
    calibration: Calibration,
    options: Options,
) -> None:
    """Run every batch of the options' data through the observers.

    A batch is the arguments of the model's ``forward``. The graph's inputs are found by evaluating
    the sources that Dynamo states for them.

    Raises:
        CalibrationError: the graph is an inner one of several; there is no batch; or a batch does
            not fit the model or holds NaN.
    """
    if frame.resumes or not frame.outermost:
        message = (
            f"calibration data is for models that are one graph, and {frame.where} takes values "
            "computed by another part of the model"
        )
        raise CalibrationError(message, rule="graph-break", site=frame.where, fix=_OTHERWISE)
    data: Iterable[Any] = options.calibration or ()
    for index, item in enumerate(data):
        given = item if options.input_fn is None else options.input_fn(item)
        values = _bound(frame.code, frame.values, given, index)
        variables = values, frame.scope
        positions = range(len(captured.inputs))
        inputs = [_evaluate(captured, position, variables, index) for position in positions]
        with named(captured.names, inputs, f"batch {index}"):
            calibration.observe(prepared, inputs)
    if calibration.count == 0:
        raise CalibrationError(
            "option 'calibration' gave 0 batches", rule="no-batches", site="calibration"
        )


def _bound(
    code: CodeType,
    values: Mapping[str, Any],
    batch: Any,
    index: int,
) -> dict[str, Any]:
    """Return the local variables that a call with the batch's arguments starts with."""
    closure = tuple(CellType() for _ in code.co_freevars)
    signature = inspect.signature(FunctionType(code, {}, closure=closure))
    names = list(signature.parameters)
    # A batch holds no modules; ``forward`` has its own as the first parameter.
    modules = list(takewhile(lambda name: isinstance(values.get(name), nn.Module), names))
    taken = [_with_default(signature.parameters[name]) for name in names[len(modules) :]]
    args, kwargs = batch_arguments(batch, index, signature.replace(parameters=taken))
    bound = signature.bind_partial(*(values[name] for name in modules), *args, **kwargs)
    # Missing values must not come from the call that is being compiled.
    others = {name: value for name, value in values.items() if name not in names}
    return {**others, **bound.arguments}


def _with_default(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return an argument that may be left out: code objects do not say which have defaults."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return parameter
    return parameter.replace(default=None)


def _evaluate(
    captured: FrameGraph,
    position: int,
    variables: tuple[Mapping[str, Any], Mapping[str, Any]],
    index: int,
) -> Any:
    source = captured.sources[position]
    name = captured.names[position]
    try:
        value = source.evaluate(*variables)
    except LookupError as error:
        raise CalibrationError(
            f"batch {index} has no '{name}' ({error})", rule="batch-names", site=name
        ) from error
    expected = source.node.meta.get("example_value")
    if isinstance(expected, Tensor):
        form = traced_form(name, expected)
        check_tensor(value, form, index)
        require_shape(value, form, index, _FREE)
    return value
