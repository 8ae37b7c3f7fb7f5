"""Fuse a residual sum, its relu and its quantize into the kernel call before it.

Runs inside Inductor, on the graph after AOTAutograd: the convolution's kernel adds into a tensor
that it overwrites, which earlier stages would undo.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.backends.onednn.limit_range import LIMITS, limit_range
from quantfx.backends.onednn.ops import (
    KERNEL_NAMES,
    QCONV,
    QCONV_SUM,
    QLINEAR_ADD,
    QLINEAR_ADD_DYNAMIC,
    QLINEAR_DYNAMIC,
)
from quantfx.passes.graph.aliasing import views_of
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.remark import Remark
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.permits import LEFT_FLOAT, may
from quantfx.passes.quant.lowered import carry_site, lowered_of, set_lowered, site_of
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_TENSOR, QUANTIZE_PER_TENSOR, tensor_qparams
from quantfx.patterns.loader import load
from quantfx.patterns.match import Match
from quantfx.patterns.matcher import Admission, Matcher
from quantfx.patterns.schema import argument_value, is_operator_call, overload, resolve_op

_CONV = "qconv_add"
# AOTAutograd's replacements of writes to views.
_SCATTERS = tuple(
    resolve_op(f"aten.{name}_scatter.default")
    for name in ("slice", "select", "diagonal", "as_strided")
)
# A float sum followed by these is one loop; in the kernel it would take another pass over memory.
_ONE_LOOP = (QUANTIZE_PER_TENSOR, resolve_op("aten.relu.default"))


@dataclass(frozen=True)
class FuseSums(Pass):
    """Replaces several loops by one kernel call.

    1. ``q(relu(qconv(x) + dq(y))) -> qconv.binary(x, y)``, in place of y
    2. ``relu(qconv(x) + y) -> qconv.binary(x, y)``, in place of the float y
    3. ``q(relu(qlinear(x) + y)) -> qlinear.binary(x, y)``; y stays as it is

    The first two apply only if nothing reads y, or its dequantized values, afterwards.

    Attributes:
        eager: Whether the graph runs without a compiler, which would lay y out for the kernel. Then
            only results of convolution kernels, which have that layout, are overwritten.
    """

    eager: bool = False

    name = "fuse-sums"
    optional = True
    keeps_float = False

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Fuse every sum that the kernels take."""
        editor = Editor(module, self.name)
        admission = _Sums(self.eager)
        matches = _matcher().run(module.graph, admission=admission)
        fused = 0
        remarks: list[Remark] = []
        for match in sorted(matches, key=lambda match: match.anchor):
            # An earlier fusion may have overwritten this summand.
            reason = admission.refuses(match)
            site = site_of(match.anchor) or match.anchor.name
            if reason is None and not may(self.name, match.label, site):
                reason = LEFT_FLOAT
            if reason is None:
                _fuse(match, editor)
                fused += 1
            else:
                remarks.append(Remark("missed", "", match.anchor.name, reason))
        return PassResult(tuple(remarks), {"fused": fused})


@lru_cache(maxsize=1)
def _matcher() -> Matcher:
    return load("sums").matcher()


class _Sums(Admission):
    """Conditions that templates cannot state: dtypes, and other readers of the summand."""

    def __init__(self, eager: bool = False) -> None:
        self._eager = eager

    def refuses(self, match: Match) -> str | None:
        """Return the first condition that a fused sum would not meet."""
        kernel, extra = match.nodes["kernel"], _find_summand(match)
        ours, other = kernel.meta.get("val"), extra.meta.get("val")
        if not isinstance(ours, Tensor) or not isinstance(other, Tensor):
            return f"the values of {kernel.name} and {extra.name} are not known"
        if ours.dtype != other.dtype or not ours.is_floating_point():
            return f"{kernel.name} is {ours.dtype}, {extra.name} {other.dtype}"
        if match.template.name != _CONV:
            return _why_scattered(extra)
        if ours.dim() != 4:
            return f"{kernel.name} has {ours.dim()} dimensions: only two-dimensional kernels sum"
        return _not_free(match) or (_layout(match) if self._eager else None)


def _why_scattered(extra: Node) -> str | None:
    # Inductor writes in place of a scatter, and cannot tell this to its fused linear (torch 2.14).
    return f"{extra.name} is a tensor that was written to" if extra.target in _SCATTERS else None


def _layout(match: Match) -> str | None:
    target = source = _integers(match) or _find_summand(match)
    while source.target in (*LIMITS, DEQUANTIZE_PER_TENSOR):  # operators that keep the layout
        source = source.all_input_nodes[0]
    ours = source.target in (QCONV, QCONV_SUM)
    return None if ours else f"{target.name} may be laid out in another way than the kernel wants"


def _find_summand(match: Match) -> Node:
    """Return the summand in the current graph."""
    add = match.nodes["add"]
    operands = argument_value(add, "self"), argument_value(add, "other")
    extra = operands[1] if operands[0] is match.nodes["kernel"] else operands[0]
    if not isinstance(extra, Node):
        raise TypeError(f"{add.name} adds {extra!r}, not the result of a node")
    return extra


def _integers(match: Match) -> Node | None:
    """Return the integers to sum into: for a quantized result, what the summand dequantizes."""
    quantize, extra = match.nodes.get("q"), _find_summand(match)
    if quantize is None or extra.target is not DEQUANTIZE_PER_TENSOR:
        return None
    same = argument_value(extra, "dtype") == argument_value(quantize, "dtype")
    source = extra.args[0]
    return source if same and isinstance(source, Node) else None


def _not_free(match: Match) -> str | None:
    """Return why the convolution may not overwrite its summand."""
    extra, integers = _find_summand(match), _integers(match)
    output = match.output
    if "q" in match.nodes and integers is None:
        return f"{extra.name} is float, or of another dtype than the result"
    if integers is None and any(user.target in _ONE_LOOP for user in output.users):
        return f"a loop behind {output.name} takes the sum along"
    for tensor in (extra,) if integers is None else (integers, extra):
        reason = _why_overwritten(tensor, match, fresh=integers is None or tensor is integers)
        if reason is not None:
            return reason
    return None


def _why_overwritten(tensor: Node, match: Match, fresh: bool) -> str | None:
    if fresh and not _is_fresh(tensor):
        return f"{tensor.name} is an input, a constant or a view"
    if tensor in match.nodes["kernel"].all_input_nodes:
        return f"{tensor.name} is what the kernel reads"
    inside = set(match.nodes.values())
    for user in tensor.users:
        if user in inside:
            continue
        if user.op == "output" or not user < match.output:
            return f"{user.name} uses {tensor.name} later"
        if tensor in views_of(user):
            return f"{user.name} is a view of {tensor.name}"
    return None


def _is_fresh(tensor: Node) -> bool:
    """Whether ``tensor`` has its own memory: an operator made it, and it is no view of an input."""
    # One of several results, such as a max pool's with indices, is as fresh as the others.
    source = tensor.args[0] if tensor.target is operator.getitem else tensor
    return isinstance(source, Node) and is_operator_call(source) and not views_of(source)


def _fuse(match: Match, editor: Editor) -> None:
    kernel, output = match.nodes["kernel"], match.output
    relu = "relu" if "relu" in match.nodes else "none"
    quantize = match.nodes.get("q")
    qparams = None if quantize is None else tensor_qparams(quantize)
    result: tuple[float, int, torch.dtype] = (1.0, 0, kernel.meta["val"].dtype)
    if qparams is not None:
        result = (qparams.scale, qparams.zero_point, qparams.dtype)
    if match.template.name == _CONV:
        call = _sum(match, editor, result, relu)
    else:
        dynamic = kernel.target is QLINEAR_DYNAMIC
        args = (*kernel.args[:6], _find_summand(match), kernel.args[6], *result)
        args = (*args, 1.0, 0, "add", 1.0, relu, [], "")
        op = QLINEAR_ADD_DYNAMIC if dynamic else QLINEAR_ADD
        call = editor.call(op, args, like=kernel, before=output)
    carry_site(kernel, call)
    limited = limit_range(call, qparams, editor, output)
    lowered = lowered_of(kernel)
    editor.replace(output, limited)
    erased = _erase_unused(editor, match)
    if lowered is not None:
        covers = (*lowered.covers, *erased, output.name)
        name = KERNEL_NAMES[overload(call)]
        fused = replace(lowered, kernel=name, covers=covers, output=output.name)
        set_lowered(limited, fused)


def _sum(match: Match, editor: Editor, result: tuple[float, int, torch.dtype], relu: str) -> Node:
    kernel = match.nodes["kernel"]
    target, scale, zero_point = _find_summand(match), 1.0, 0
    integers = _integers(match)
    if integers is not None:
        scale, zero_point = tensor_qparams(target)[:2]
        target = integers
    geometry = kernel.args[7:11]
    args = (*kernel.args[:6], target, kernel.args[6], *geometry, *result)
    args = (*args, scale, zero_point, "sum", 1.0, relu, [], "")
    return editor.call(QCONV_SUM, args, like=kernel, before=match.output)


def _erase_unused(editor: Editor, match: Match) -> list[str]:
    """Erase the nodes that the kernel call replaces; return their names without the kernel's."""
    kernel = match.nodes["kernel"]
    summands = [n for n in match.nodes["add"].all_input_nodes if n.target is DEQUANTIZE_PER_TENSOR]
    nodes = sorted({*match.nodes.values(), *summands} - {match.output}, reverse=True)
    erased: list[str] = []
    for node in nodes:
        if not node.users:
            erased += [node.name] if node is not kernel else []
            editor.erase(node)
    return erased[::-1]
