"""Export the q/dq graph to ONNX, as QuantizeLinear and DequantizeLinear pairs, by torch's exporter.

torch 2.13 with onnxscript 0.7 translates most of quantfx's operators. The translations here are for
operators that it lacks or gets wrong: it drops the ends of integer ranges narrower than their
dtype.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from quantfx.passes.export.plain_outputs import constants_of, take_out_plain
from quantfx.passes.graph.clone import clone, recompile
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.nested_calls import nested_calls
from quantfx.passes.graph.plain_operators import plain_operators
from quantfx.passes.graph.state import written_state
from quantfx.passes.inputs.contract import free_numbers
from quantfx.passes.inputs.example import ExampleInputs, distinct
from quantfx.passes.quant.qdq import (
    CAST,
    CHOOSE_QPARAMS,
    DEQUANTIZE_DYNAMIC,
    DEQUANTIZE_GROUPS,
    QUANTIZE_DYNAMIC,
    QUANTIZE_PER_TENSOR,
)
from quantfx.patterns.errors import QuantfxError, warn

_NEEDED = ("onnx", "onnxscript")
_OPSET = 20
_FLOAT, _INT64, _DOUBLE = 1, 7, 11  # values of onnx.TensorProto, as onnx may not be installed


def export_onnx(quantized: GraphModule, path: Path, inputs: ExampleInputs) -> None:
    """Write a q/dq graph as an ONNX model.

    Args:
        quantized: The q/dq graph; not changed.
        path: The file.
        inputs: The inputs that the model was captured with.

    Raises:
        QuantfxError: a package is missing, or the model has what ONNX cannot express.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = f"export to ONNX needs {' and '.join(missing)}"
        raise QuantfxError(message, rule="missing-package", fix="pip install onnxscript")
    _require_expressible(quantized)
    quantized = plain_operators(_without_constants(quantized))
    given = inputs.args, inputs.kwargs
    (args, kwargs), shapes = distinct(quantized, given, inputs.dynamic_shapes)
    try:
        program = torch.onnx.export(
            quantized,
            args,
            kwargs=kwargs,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            custom_translation_table=_translations(importlib.import_module("onnxscript").opset20),
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise QuantfxError(
            f"torch cannot export this model to ONNX: {_reason(error)}", rule="onnx-rejects"
        ) from error
    if program is None:
        raise QuantfxError("torch exported nothing to ONNX", rule="onnx-rejects")
    program.save(path)


def _require_expressible(quantized: GraphModule) -> None:
    """Refuse graphs with what ONNX models do not have: state, varying numbers, branches."""
    written = written_state(quantized)
    if written:
        message = f"buffer '{written[0][0]}' is written to: an ONNX model has no state."
        fix = "pass it to the model as an input and return it"
        raise QuantfxError(message, rule="written-buffer", site=written[0][0], fix=fix)
    for path in free_numbers(quantized):
        message = f"input '{path}' is a number that varies, and ONNX models take tensors"
        fix = "let the model take it as a tensor, such as torch.tensor(0)"
        raise QuantfxError(message, rule="onnx-rejects", site=path, fix=fix)
    for _, graph_module in all_graphs(quantized):
        if any(call.is_choice for call in nested_calls(graph_module)):
            message = "torch.cond is not taken from a graph by torch's exporter to ONNX"
            raise QuantfxError(message, rule="onnx-rejects", site="torch.cond")


def _without_constants(quantized: GraphModule) -> GraphModule:
    """Return the graph with None in place of the numbers and texts that it returns."""
    constants = constants_of(quantized.graph)
    if not constants:
        return quantized
    warn(
        "an ONNX model returns tensors only: the "
        f"results {', '.join(map(repr, constants.values()))} are not in it, as they are the "
        "same in each call",
        rule="constant-results",
        stacklevel=4,
    )
    copy = clone(quantized)
    take_out_plain(copy.graph)
    recompile(copy)
    return copy


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0]


def _translations(op: Any) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the translations of torch's operators, by the operators of ``op``.

    They are plain functions, as onnxscript requires, run once on symbolic values.
    """

    def integer(value: int, dtype: int) -> Any:
        return op.Cast(op.Constant(value_int=value), to=dtype)

    def quantize(
        x: Any, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: int
    ) -> Any:
        # QuantizeLinear clamps to the dtype. With clamped floats, runtimes that look for
        # QuantizeLinear still find a quantized convolution; with clamped integers they would not.
        low, high = (quant_min - zero_point) * scale, (quant_max - zero_point) * scale
        if (quant_min, quant_max) not in ((0, 255), (-128, 127)):
            x = op.Clip(x, op.Constant(value_float=low), op.Constant(value_float=high))
        return op.QuantizeLinear(x, op.Constant(value_float=scale), integer(zero_point, dtype))

    def choose(x: Any, quant_min: int, quant_max: int, eps: float, dtype: int) -> Any:
        zero = op.Constant(value_float=0.0)
        low = op.Min(op.ReduceMin(x, keepdims=0), zero)
        high = op.Max(op.ReduceMax(x, keepdims=0), zero)
        steps = op.Constant(value_float=float(quant_max - quant_min))
        scale = op.Max(op.Div(op.Sub(high, low), steps), op.Constant(value_float=eps))
        smallest = op.Constant(value_float=float(quant_min))
        largest = op.Constant(value_float=float(quant_max))
        zero_point = op.Sub(smallest, op.Round(op.Div(low, scale)))
        zero_point = op.Clip(zero_point, smallest, largest)
        return op.Cast(scale, to=_DOUBLE), op.Cast(zero_point, to=_INT64)  # like torch's own

    def quantize_dynamic(
        x: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int, dtype: int
    ) -> Any:
        quantized = op.QuantizeLinear(x, op.Cast(scale, to=_FLOAT), op.Cast(zero_point, to=dtype))
        return op.Clip(quantized, integer(quant_min, dtype), integer(quant_max, dtype))

    def dequantize_dynamic(
        x: Any,
        scale: Any,
        zero_point: Any,
        quant_min: int,
        quant_max: int,
        dtype: int,
        out_dtype: int | None = None,
    ) -> Any:
        value = op.DequantizeLinear(x, op.Cast(scale, to=_FLOAT), op.Cast(zero_point, to=dtype))
        return value if out_dtype in (None, -1) else op.Cast(value, to=out_dtype)

    def cast(x: Any, dtype: int) -> Any:
        return op.Cast(x, to=dtype)

    return {
        QUANTIZE_PER_TENSOR: quantize,
        CHOOSE_QPARAMS: choose,
        QUANTIZE_DYNAMIC: quantize_dynamic,
        DEQUANTIZE_DYNAMIC: dequantize_dynamic,
        DEQUANTIZE_GROUPS: _dequantize_groups(op),
        CAST: cast,
    }


def _dequantize_groups(op: Any) -> Callable[..., Any]:
    """Return the translation, by the operators of ``op``."""

    def dequantize_groups(
        x: Any,
        scales: Any,
        zero_points: Any,
        quant_min: int,
        quant_max: int,
        dtype: int,
        group_size: int,
        output_dtype: int,
    ) -> Any:
        # Each group is a channel of one long matrix: blocks in rows came with opset 21.
        flat = op.Constant(value_ints=[-1])
        rows = op.Reshape(x, op.Constant(value_ints=[-1, group_size]))
        scales, zero_points = op.Reshape(scales, flat), op.Reshape(zero_points, flat)
        value = op.Reshape(op.DequantizeLinear(rows, scales, zero_points, axis=0), op.Shape(x))
        return op.Cast(value, to=output_dtype)

    return dequantize_groups
