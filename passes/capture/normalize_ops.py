"""Give operators with several spellings one spelling."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from quantfx.passes.graph.aliasing import MAY_COPY, overwritten, views_of, writes_to
from quantfx.passes.graph.conv_geometry import Geometry
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import (
    MISSING,
    argument_value,
    arguments,
    is_operator_call,
    overload,
    resolve_op,
)

_CONV = {
    resolve_op(f"aten.conv{n}d.padding"): resolve_op(f"aten.conv{n}d.default") for n in (1, 2, 3)
}
_RELU6 = resolve_op("aten.relu6.default")
_HARDTANH = resolve_op("aten.hardtanh.default")
_CAT = resolve_op("aten.cat.default")
_SAME_ARGUMENTS = {
    resolve_op("aten.concat.default"): _CAT,
    resolve_op("aten.concatenate.default"): _CAT,
    resolve_op("aten.multiply.Tensor"): resolve_op("aten.mul.Tensor"),
}
_AS_STRIDED = resolve_op("aten.as_strided.default")
_VIEWS = {
    resolve_op("aten.view.default"): resolve_op("aten.reshape.default"),
    resolve_op("aten._unsafe_view.default"): resolve_op("aten.reshape.default"),
    resolve_op("aten.view_as.default"): resolve_op("aten.reshape_as.default"),
}


class NormalizeOps(GraphPass):
    """Rewrite spellings.

    1. ``convNd(x, w, padding="same") -> convNd(x, w, padding=[1, 1])``, where the padding is the
       same on both sides
    2. ``relu6(x) -> hardtanh(x, 0, 6)``
    3. ``concat -> cat``, ``multiply -> mul``
    4. ``view(x, sizes) -> reshape(x, sizes)``, ``view_as -> reshape_as``: a view needs the strides
       that x had at capture, but an input or the result of an int8 kernel may have another layout.
       A view stays where something writes to the memory, since it must not copy then
    5. ``as_strided(slice(x), sizes, strides) -> as_strided(x, sizes, strides, offset)``: it reads
       beyond the slice, where neither a rounded slice nor Inductor has any memory
    6. keyword arguments equal to their default (``alpha=1``) are dropped
    """

    name = "normalize-ops"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite each node at most once per rule."""
        count = 0
        written = overwritten(editor.graph)
        for node in list(editor.graph.nodes):
            if is_operator_call(node):
                count += _drop_default_kwargs(node)
                rule = _RULES.get(node.target)
                if rule and not (node in written and node.target in _VIEWS):
                    count += rule(editor, node)
        return count


def _drop_default_kwargs(node: Node) -> bool:
    known = arguments(overload(node))
    kept = {
        name: value
        for name, value in node.kwargs.items()
        if isinstance(value, Node) or known[name].default is MISSING or known[name].default != value
    }
    if len(kept) == len(node.kwargs):
        return False
    node.kwargs = kept
    return True


def _rename(editor: Editor, node: Node) -> bool:
    _replace(editor, node, _SAME_ARGUMENTS[overload(node)], node.args, dict(node.kwargs))
    return True


def _relu6(editor: Editor, node: Node) -> bool:
    _replace(editor, node, _HARDTANH, (argument_value(node, "self"), 0.0, 6.0), {})
    return True


def _reshape(editor: Editor, node: Node) -> bool:
    args = tuple(argument_value(node, name) for name in arguments(overload(node)))
    _replace(editor, node, _VIEWS[overload(node)], args, {})
    return True


def _read_from_memory(editor: Editor, node: Node) -> bool:
    """Read the tensor that owns the memory; for an input, the caller decides where it begins."""
    viewed = argument_value(node, "self")
    root = viewed
    while (above := _find_viewed(root)) is not None:
        root = above
    if root is viewed or root.op != "call_function":
        return False
    offset = argument_value(node, "storage_offset")
    if offset is None:
        offset = viewed.meta["val"].storage_offset()
    if not isinstance(offset, (int, Node)):
        return False
    args = (root, argument_value(node, "size"), argument_value(node, "stride"), offset)
    _replace(editor, node, overload(node), args, {})
    return True


def _find_viewed(node: Node) -> Node | None:
    """Return what ``node`` is certainly a view of: not a copy, and nothing was written to."""
    source = node.args[0] if node.target is operator.getitem else node
    if not isinstance(source, Node) or source.target in MAY_COPY or writes_to(source):
        return None
    return next(iter(views_of(source)), None)


def _write_padding_out(editor: Editor, node: Node) -> bool:
    """Write out ``same`` (stride 1: total padding d * (k - 1)) and ``valid`` padding."""
    weight = argument_value(node, "weight").meta.get("val")
    if not isinstance(weight, torch.Tensor):
        return False
    geometry = Geometry.of(node, tuple(weight.shape[2:]))
    if not geometry.is_even:
        return False
    names = ("input", "weight", "bias", "stride")
    args = tuple(argument_value(node, name) for name in names)
    explicit = (*args, geometry.front, list(geometry.dilation), geometry.groups)
    _replace(editor, node, _CONV[overload(node)], explicit, {})
    return True


def _replace(
    editor: Editor,
    node: Node,
    target: OpOverload[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    val = node.meta.get("val")
    new = editor.call(target, args, kwargs=kwargs, after=node, val=val)
    editor.replace(node, new)


_RULES: dict[Any, Callable[[Editor, Node], bool]] = {
    **dict.fromkeys(_CONV, _write_padding_out),
    **dict.fromkeys(_SAME_ARGUMENTS, _rename),
    **dict.fromkeys(_VIEWS, _reshape),
    _AS_STRIDED: _read_from_memory,
    _RELU6: _relu6,
}
