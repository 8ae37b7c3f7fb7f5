"""Calibration data that comes with the options: observed before the first call."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from itertools import takewhile
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.dynamo.calibration import Calibration
from quantfx.dynamo.frame_graph import FrameGraph
from quantfx.dynamo.internals import Frame
from quantfx.dynamo.options import Options
from quantfx.passes.calibrate import batch_arguments, check_tensor
from quantfx.passes.errors import CalibrationError

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

    A batch is what the model's own ``forward`` takes; what the graph takes is found by evaluating
    where Dynamo says that each of its inputs comes from.

    Raises:
        CalibrationError: the model is several graphs, of which this is an inner one; there is no
            batch; or one does not fit the model or holds NaN.
    """
    if frame.resumes or not frame.outermost:
        raise CalibrationError(
            f"calibration data is for models that are one graph, and {frame.where} takes values "
            f"computed by another part of the model: {_OTHERWISE}"
        )
    data: Iterable[Any] = options.calibration or ()
    for index, item in enumerate(data):
        given = item if options.input_fn is None else options.input_fn(item)
        args, kwargs = batch_arguments(given, index)
        values = _bound(frame.code, frame.values, args, kwargs, index)
        variables = values, frame.scope
        positions = range(len(captured.inputs))
        inputs = [_evaluated(captured, position, variables, index) for position in positions]
        calibration.observe(prepared, inputs)
    if calibration.count == 0:
        raise CalibrationError("option 'calibration' gave 0 batches")


def _bound(
    code: CodeType,
    values: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    index: int,
) -> dict[str, Any]:
    """Return the local variables that a call with these arguments starts with."""
    closure = tuple(CellType() for _ in code.co_freevars)
    signature = inspect.signature(FunctionType(code, {}, closure=closure))
    names = list(signature.parameters)
    # Modules are no part of a batch; ``forward`` has its own as the first parameter.
    modules = list(takewhile(lambda name: isinstance(values.get(name), nn.Module), names))
    args = (*(values[name] for name in modules), *args)
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise CalibrationError(
            f"batch {index} does not fit {code.co_name}({', '.join(names)}): {error}. A loader of "
            "(input, label) pairs takes option input_fn=lambda batch: batch[0]"
        ) from None
    # What the batch does not give must not come from the call that is being compiled.
    others = {name: value for name, value in values.items() if name not in names}
    return {**others, **bound.arguments}


def _evaluated(
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
        raise CalibrationError(f"batch {index} has no '{name}' ({error})") from error
    expected = source.node.meta.get("example_value")
    if isinstance(expected, Tensor):
        check_tensor(value, expected, name, index, free=_FREE)
    return value
