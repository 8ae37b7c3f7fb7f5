"""The kernel family ``native-ops``: operators on quantized tensors that need no packed weight.

``q(add(dq(a), dq(b))) -> quantized.add(a, b, scale, zero_point)``. Where the kernel is called
``QuantizedCPU``, after torch's dispatch key, it is the ATen operator itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from quantfx.backends.quantized.engines import Engines
from quantfx.backends.quantized.family import NativeFamily
from quantfx.backends.quantized.quantized_tensors import FROM_INTEGERS
from quantfx.backends.quantized.static import (
    limit_quantized,
    make_clampable,
    requantize,
    result_qparams,
    result_reason,
    unsigned_reason,
)
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, argument_node
from quantfx.passes.quant.qdq import dequantizes, tensor_qparams
from quantfx.patterns.schema import argument_value, arguments, overload, resolve_op

_SCALE, _ZERO_POINT = "(scale)", "(zero point)"
_RESULT = (_SCALE, _ZERO_POINT)
_SAME_OP = "QuantizedCPU"
_FIRST = ("self", "input")  # its name in ATen operators of one tensor
_BATCH_NORM = "quantized.batch_norm*d"
_MOST_SPATIAL = 3
_NORM = ("weight", "bias", "eps", *_RESULT)

_BATCH_NORM_INPUTS = ("input", "weight", "bias", "running_mean", "running_var", "eps")
# Maps a kernel to its arguments: the ATen operator's by name, the result's qparams, literals.
_CALLS: dict[str, tuple[Any, ...]] = {
    "quantized.add": ("self", "other", *_RESULT),
    "quantized.mul": ("self", "other", *_RESULT),
    "quantized.matmul": ("self", "other", *_RESULT),
    "quantized.add.Scalar": ("self", "other"),
    "quantized.mul.Scalar": ("self", "other"),
    "quantized.cat": ("tensors", "dim", *_RESULT),
    "quantized.elu": ("self", *_RESULT, "alpha", "scale", "input_scale"),
    "quantized.leaky_relu": ("self", "negative_slope", False, *_RESULT),
    "quantized.hardswish": ("self", *_RESULT),
    "quantized.prelu": ("self", "weight", *_RESULT),
    "quantized.instance_norm": ("input", *_NORM),
    "quantized.group_norm": ("input", "num_groups", *_NORM),
    "quantized.layer_norm": ("input", "normalized_shape", *_NORM),
    _BATCH_NORM: (*_BATCH_NORM_INPUTS, *_RESULT),
    "quantized.softmax": ("self", "dim", *_RESULT),
}

# Fixed qparams of the results of some ATen operators.
_FIXED = {
    resolve_op("aten.sigmoid.default"): (2**-8, 0),
    resolve_op("aten.hardsigmoid.default"): (2**-8, 0),
    resolve_op("aten.tanh.default"): (2**-7, 128),
}
_STACK = resolve_op("aten.stack.default")
_UNSQUEEZE = resolve_op("aten.unsqueeze.default")
_CLAMPS = {resolve_op(f"aten.{op}.default") for op in ("relu", "relu6", "hardtanh", "clamp")}
_MAX_POOL3D = resolve_op("aten.max_pool3d.default")
_AVERAGES = {resolve_op(f"aten.avg_pool{n}d.default") for n in (1, 2, 3)}


@dataclass(frozen=True)
class NativeOps(NativeFamily):
    """torch's kernels for quantized tensors.

    Attributes:
        engines: The engines that they may run with: unpacked, they read torch's global engine.
        limits: Whether results are clamped to integer ranges narrower than the dtype's.
    """

    engines: Engines = Engines()  # noqa: RUF009  a frozen value
    limits: bool = True

    name = "native-ops"
    kernels = frozenset({*_CALLS, _SAME_OP})

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return the first condition of the kernel that the candidate does not meet."""
        reads = [node for node in candidate.anchor.all_input_nodes if dequantizes(node)]
        if not reads:
            return f"{candidate.anchor.name} reads no quantized tensor"
        return (
            unsigned_reason(*reads)
            or result_reason(candidate)
            or _float_operand(candidate)
            or _qparams_reason(candidate)
            or _prelu_without_one(candidate)
            or _no_such_rank(candidate)
            or self._qnnpack_reason(candidate)
        )

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the kernel call, on the quantized tensors."""
        before = candidate.match.output
        if candidate.kernel == _SAME_OP:
            return self._emit_same_op(candidate, editor, before)
        kernel, qparams = _kernel(candidate), result_qparams(candidate)
        given = {_SCALE: qparams.scale, _ZERO_POINT: qparams.zero_point}
        args: list[Any] = []
        for each in _CALLS[candidate.kernel]:
            if not isinstance(each, str):
                args.append(each)
            else:
                value = argument_value(candidate.anchor, each) if each not in given else given[each]
                args.append(_carry(value, editor, before))
        if candidate.kernel == _BATCH_NORM:
            args[1:3] = _affine(candidate.anchor, editor, before)
        if candidate.kernel == "quantized.softmax":  # qnnpack counts dimensions from the front
            args[1] %= candidate.anchor.meta["val"].dim()
        if candidate.anchor.target is _STACK:
            args[0] = [_unsqueeze(each, args[1], editor, before) for each in args[0]]
        call = _call(resolve_op(kernel), tuple(args), candidate, editor)
        if self.limits and qparams.limits is not None:
            if candidate.kernel.endswith(".Scalar"):  # its range moved with its qparams
                call = requantize(call, qparams, editor, before)
            call = limit_quantized(call, qparams, editor, before, self.engines.runs_qnnpack)
        return Emission(call, before, kernel.removesuffix(".default"))

    def _emit_same_op(self, candidate: Candidate, editor: Editor, before: Node) -> Emission:
        node = candidate.anchor
        args = _carry(node.args, editor, before)
        kwargs = _carry(node.kwargs, editor, before)
        if node.target in _CLAMPS:
            args = (make_clampable(args[0], editor, before, self.engines.runs_qnnpack), *args[1:])
        call = _call(overload(node), args, candidate, editor, kwargs)
        return Emission(call, before, str(node.target).removesuffix(".default"))

    def _qnnpack_reason(self, candidate: Candidate) -> str | None:
        node = candidate.anchor
        if not self.engines.runs_qnnpack:
            return None
        if candidate.kernel == "quantized.add" and not _qnnpack_adds(candidate):
            return "engine qnnpack adds tensors only whose scales are near to that of the sum"
        if node.target is _MAX_POOL3D:
            return "engine qnnpack has no max_pool3d"
        if node.target in _AVERAGES and not argument_value(node, "count_include_pad"):
            return "engine qnnpack counts padding in averages that leave it out"
        return None


def _qnnpack_adds(candidate: Candidate) -> bool:
    """Whether the ratio of each operand's scale to that of the result is in [2^-14, 2^8)."""
    scale = result_qparams(candidate).scale
    operands = (candidate.dequantize(name) for name in ("self", "other"))
    return all(2**-14 <= tensor_qparams(each).scale / scale < 2**8 for each in operands)


def _kernel(candidate: Candidate) -> str:
    """Return the operator's full name, with the activation that it fuses."""
    name, _, overload_name = candidate.kernel.partition(".")[2].partition(".")
    if candidate.kernel == _BATCH_NORM:
        name = name.replace("*", str(_spatial_rank(candidate)))
    relu = "_relu" if candidate.behind else ""
    return f"quantized.{name}{relu}.{overload_name or 'default'}"


def _spatial_rank(candidate: Candidate) -> int:
    """Return the spatial rank of a batch norm's kernel; rows of vectors use the 1d kernel."""
    rank: int = argument_node(candidate.anchor, "input").meta["val"].dim()
    return max(1, rank - 2)


def _no_such_rank(candidate: Candidate) -> str | None:
    if candidate.kernel != _BATCH_NORM or _spatial_rank(candidate) <= _MOST_SPATIAL:
        return None
    return f"torch has no quantized batch norm of {_spatial_rank(candidate)} spatial dimensions"


def _float_operand(candidate: Candidate) -> str | None:
    """Return the operand of the kernel that is float, as a sentence."""
    names = {"self", "other", "input", "tensors"} & {*_CALLS.get(candidate.kernel, _FIRST)}
    for name in sorted(names & arguments(overload(candidate.anchor)).keys()):
        value = argument_value(candidate.anchor, name)
        for node in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(node, Node) and not dequantizes(node):
                return f"{node.name} is float"
    if candidate.kernel == "quantized.prelu":
        return None if dequantizes(candidate.dequantize("weight")) else "its weight is float"
    return None


def _qparams_reason(candidate: Candidate) -> str | None:
    """Return why the result cannot have the graph's qparams, as a sentence."""
    if candidate.kernel != _SAME_OP:
        return None
    node, qparams = candidate.anchor, result_qparams(candidate)
    fixed = _FIXED.get(overload(node))
    if fixed is not None and qparams.limits is not None:
        return f"its result is to keep to {qparams.limits}, and the kernel yields all of 0..255"
    if fixed is not None:
        yields, what = fixed, "the kernel yields"
    else:
        source = next(each for each in node.all_input_nodes if dequantizes(each))
        read = tensor_qparams(source)
        yields, what = (read.scale, read.zero_point), f"{source.name} has"
    asked = qparams.scale, qparams.zero_point
    return None if asked == yields else f"its result has qparams {asked}, {what} {yields}"


def _prelu_without_one(candidate: Candidate) -> str | None:
    """Return why the weight's range lacks 1, by which the kernel multiplies positive values."""
    if candidate.kernel != "quantized.prelu":
        return None
    weight = candidate.dequantize("weight")
    qparams = tensor_qparams(weight)
    integer = round(1 / qparams.scale) + qparams.zero_point
    if integer <= qparams.quant_max and abs(qparams.scale * round(1 / qparams.scale) - 1) < 0.01:
        return None
    return f"{weight.name} has a range without 1: its spec needs observer=MustInclude(1.0)"


def _carry(value: Any, editor: Editor, before: Node) -> Any:
    """Return ``value`` with quantized tensors in place of dequantizes."""

    def source(node: Node) -> Node:
        if not dequantizes(node):
            return node
        integers = argument_node(node, "input")
        if integers.op != "get_attr":
            return integers
        qparams = tensor_qparams(node)
        args = (integers, qparams.scale, qparams.zero_point)
        return editor.call(
            FROM_INTEGERS, args, like=integers, before=before, val=integers.meta.get("val")
        )

    return map_arg(value, source)


def _affine(node: Node, editor: Editor, before: Node) -> list[Node]:
    """Return weight and bias of a batch norm, which the kernel needs even if there are none."""
    mean = argument_node(node, "running_mean")
    channels = mean.meta["val"].shape[0]
    found: list[Node] = []
    for name, value in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
        given = argument_value(node, name)
        target = f"{mean.target}_no_{name}"
        if given is None:
            given = editor.shared_constant(target, value, like=mean, before=before)
        found.append(given)
    return found


def _unsqueeze(x: Node, axis: int, editor: Editor, before: Node) -> Node:
    val = x.meta["val"].unsqueeze(axis)
    return editor.call(_UNSQUEEZE, (x, axis), like=x, before=before, val=val)


def _call(
    target: Any,
    args: tuple[Any, ...],
    candidate: Candidate,
    editor: Editor,
    kwargs: dict[str, Any] | None = None,
) -> Node:
    before = candidate.match.output
    return editor.call(
        target,
        args,
        kwargs=kwargs,
        like=candidate.anchor,
        before=before,
        val=before.meta.get("val"),
    )
