"""The text in an operator's node, and on the edges that enter it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import Parameter, signature
from typing import Any, cast

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import Node

from quantfx.passes.draw.fold import Constant
from quantfx.passes.draw.picture import NodeKind
from quantfx.passes.graph.scopes import op_name
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.quant.qdq import has_qparams
from quantfx.patterns.schema import MISSING, arguments

# Operators that a backend has kernels for; drawings highlight them.
_KERNELS = frozenset({
    "conv1d", "conv2d", "conv3d", "convolution",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum",
    "lstm", "gru", "scaled_dot_product_attention",
})  # fmt: skip
_LOWERED = ("onednn.", "quantized.", "mkldnn.")
_COMMUTATIVE = frozenset({
    "add", "add_", "mul", "mul_", "maximum", "minimum", "eq", "ne",
    "logical_and", "logical_or", "logical_xor",
    "bitwise_and", "bitwise_or", "bitwise_xor",
})  # fmt: skip
# Literal arguments worth showing in a drawing, besides every string.
_LITERALS = ("other", "alpha", "exponent", "dim")
# Words by which kernels are told to do nothing.
_NOTHING = "none"
# Arguments by which kernels read qparams, which are not written.
_QPARAM_SLOTS = ("w_scale", "w_scales", "w_zero_point")
# Names that a pass invented for a constant tell nothing beyond its reader.
_MADE_UP = ("_frozen_param", "_tensor_constant", "lifted_tensor_", "_scale_", "_zero_point_")


def slots(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield every slot that reads a node: ``input``, ``tensors.1`` inside a list."""
    if node.op == "output":
        yield from _nodes_in("", node.args[0])
        return
    names = _argument_names(node)
    for position, value in enumerate(node.args):
        name = names[position] if position < len(names) else str(position)
        yield from _nodes_in(name, value)
    for name in sorted(node.kwargs):
        yield from _nodes_in(name, node.kwargs[name])


def kind_of(node: Node) -> NodeKind:
    """Return the kind of node that ``node`` is drawn as, if drawn separately."""
    if node.op in _KIND_OF_OP:
        return _KIND_OF_OP[node.op]
    if is_observer(node):
        return "observe"
    if has_qparams(node):
        return "quantize"
    name = op_name(node)
    if isinstance(node.target, HigherOrderOperator):
        return "control"
    if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float)):
        return "scalar"
    if name == "getitem":
        return "item"
    if name.startswith(_LOWERED):
        return "lowered"
    return "kernel" if name in _KERNELS else "op"


def title_of(node: Node) -> str:
    """Return the operator with its distinguishing literal arguments: ``mul 2.0``."""
    if node.op in ("placeholder", "call_module"):
        return str(node.target)
    name = op_name(node)
    if name == "getitem":
        return f"[{node.args[1]}]"
    return " ".join([name, *_literals(node)])


def orders_matter(node: Node) -> bool:
    """Whether exchanging two inputs of ``node`` changes its result."""
    scaled = "alpha" in node.kwargs and node.kwargs["alpha"] != 1
    return bool(scaled) or op_name(node) not in _COMMUTATIVE


def constant_lines(node: Node, constants: Mapping[Node, Constant], scope: str) -> list[str]:
    """Return a line for each constant ``node`` reads: ``weight s8 per-channel 16x3x3x3``.

    Equal constants share a line. A constant outside the module of ``node`` is named.
    """
    lines: dict[str, list[str]] = {}
    for slot, producer in slots(node):
        constant = constants.get(producer)
        if constant is not None and slot not in _QPARAM_SLOTS:
            name = _shown_name(constant.target, scope, slot)
            text = f"{constant} ({name})" if name else str(constant)
            lines.setdefault(text, []).append(slot)
    return [f"{', '.join(names)} {text}" for text, names in lines.items()]


_KIND_OF_OP: dict[str, NodeKind] = {
    "placeholder": "input",
    "output": "output",
    "get_attr": "constant",
}


def _shown_name(target: str, scope: str, slot: str) -> str:
    owner, _, name = target.rpartition(".")
    own = owner == scope
    if name.startswith(_MADE_UP) or (own and name.startswith(slot)):
        return ""
    return name if own else target


def _nodes_in(slot: str, value: object) -> Iterator[tuple[str, Node]]:
    if isinstance(value, Node):
        yield slot, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast(tuple[object, ...], value)):
            yield from _nodes_in(f"{slot}.{index}" if slot else str(index), item)
    elif isinstance(value, Mapping):
        for key, item in cast(Mapping[str, object], value).items():
            yield from _nodes_in(f"{slot}.{key}" if slot else str(key), item)
    elif isinstance(value, slice):
        yield from _nodes_in(slot, (value.start, value.stop, value.step))


def _argument_names(node: Node) -> list[str]:
    target = node.target
    if isinstance(target, OpOverload):
        return list(arguments(target))
    if isinstance(target, HigherOrderOperator):
        parameters = signature(type(target).__call__).parameters.values()
        positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        return [p.name for p in parameters if p.kind in positional][1:]
    return []


def _literals(node: Node) -> Iterator[str]:
    target = node.target
    if not isinstance(target, OpOverload):
        # Arithmetic on sizes: 2 * s0.
        yield from (str(value) for value in node.args if isinstance(value, (int, float)))
        return
    known = arguments(target)
    values: dict[str, Any] = dict(zip(known, node.args, strict=False)) | dict(node.kwargs)
    for name, value in values.items():
        default = known[name].default if name in known else MISSING
        if isinstance(value, str) and value not in (default, _NOTHING, ""):
            yield value
        elif name in _LITERALS and _is_literal(value) and value != default:
            yield str(value) if name == "other" else f"{name}={value}"


def _is_literal(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, int) for item in cast(tuple[object, ...], value))
    return isinstance(value, (int, float))
