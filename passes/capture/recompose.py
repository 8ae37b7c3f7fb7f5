"""Rewrite operators of torch's core set to their names in the training IR."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import argument_value, is_operator_call, resolve_op

_BATCH_NORM = resolve_op("aten.batch_norm.default")
_POOL = resolve_op("aten.max_pool2d.default")


class Recompose(GraphPass):
    """Rewrite layers that ``ExportedProgram.run_decompositions`` decomposed.

    1. ``convolution(x, w, ..., transposed=False) -> conv2d(x, w, ...)``, and 1d, 3d, transposed
    2. ``_native_batch_norm_legit_no_training(x, ...)[0] -> batch_norm(x, ..., training=False)``
    3. ``max_pool2d_with_indices(x, ...)[0] -> max_pool2d(x, ...)``

    Rules 2 and 3 apply only where nothing reads the other results.
    """

    name = "recompose"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite every operator that a rule knows."""
        count = 0
        for node in list(editor.graph.nodes):
            rule = _RULES.get(node.target) if is_operator_call(node) else None
            count += bool(rule and rule(editor, node))
        return count


def _convolution(editor: Editor, node: Node) -> bool:
    dimensions = node.meta["val"].dim() - 2
    if not 1 <= dimensions <= 3:
        return False
    names = ["input", "weight", "bias", "stride", "padding"]
    transposed = argument_value(node, "transposed")
    names += ["output_padding", "groups", "dilation"] if transposed else ["dilation", "groups"]
    overload = "default" if dimensions == 1 else "input"
    op = f"conv_transpose{dimensions}d.{overload}" if transposed else f"conv{dimensions}d.default"
    args = tuple(argument_value(node, name) for name in names)
    _replace(editor, node, resolve_op(f"aten.{op}"), args)
    return True


def _batch_norm(editor: Editor, node: Node) -> bool:
    names = ("input", "weight", "bias", "running_mean", "running_var")
    args = (*(argument_value(node, name) for name in names), False)
    args = (*args, argument_value(node, "momentum"), argument_value(node, "eps"), False)
    return _replace_first(editor, node, _BATCH_NORM, args)


def _max_pool(editor: Editor, node: Node) -> bool:
    names = ("self", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    args = tuple(argument_value(node, name) for name in names)
    return _replace_first(editor, node, _POOL, args)


def _replace_first(
    editor: Editor, node: Node, target: Callable[..., Any], args: tuple[Any, ...]
) -> bool:
    """Replace the first result, unless another result is read."""
    items = [user for user in node.users if user.target is operator.getitem]
    read = [item for item in items if item.users]
    if len(items) < len(node.users) or any(item.args[1] != 0 for item in read):
        return False
    for item in read:
        _replace(editor, item, target, args)
    editor.erase_unused(*(item for item in items if item not in read), node)
    return True


def _replace(editor: Editor, node: Node, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    val = node.meta["val"]
    editor.replace(node, editor.call(target, args, before=node, val=val))


_RULES: dict[Any, Callable[[Editor, Node], bool]] = {
    resolve_op("aten.convolution.default"): _convolution,
    resolve_op("aten._native_batch_norm_legit_no_training.default"): _batch_norm,
    resolve_op("aten.max_pool2d_with_indices.default"): _max_pool,
}
