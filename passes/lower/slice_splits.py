"""Rewrite splits into several tensors as slices, which yield one tensor each."""

from __future__ import annotations

import operator
from itertools import accumulate
from typing import Any

from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import argument_value, resolve_op

_UNBIND = resolve_op("aten.unbind.int")
_SPLITS = frozenset(
    resolve_op(f"aten.{name}")
    for name in ("chunk.default", "split.Tensor", "split_with_sizes.default")
)
_SLICE = resolve_op("aten.slice.Tensor")
_SELECT = resolve_op("aten.select.int")


class SliceSplits(GraphPass):
    """``getitem(split(x), i) -> slice(x)``, and ``getitem(unbind(x), i) -> select(x, i)``.

    Both read the same memory. A split along a dimension of free size stays unchanged.
    """

    name = "slice-splits"
    optional = True
    counts = "sliced"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite every split whose readers only read single parts."""
        sliced = 0
        for target in (*_SPLITS, _UNBIND):
            for node in editor.graph.find_nodes(op="call_function", target=target):
                sliced += _slice(editor, node)
        return sliced


def _slice(editor: Editor, node: Node) -> int:
    source, parts = node.all_input_nodes[0], node.meta.get("val")
    if len(node.all_input_nodes) > 1 or not isinstance(parts, list | tuple):
        return 0
    if any(user.target is not operator.getitem for user in node.users):
        return 0
    looks = _looks(node, list(parts))
    if looks is None:
        return 0
    target = _SELECT if node.target is _UNBIND else _SLICE
    readers = list(node.users)
    for reader in readers:
        index = reader.args[1]
        assert isinstance(index, int), "a split is a list"
        given = (source, *looks[index])
        made = editor.call(target, given, like=reader, before=reader, val=reader.meta.get("val"))
        editor.replace(reader, made)
    editor.erase(node)
    return len(readers)


def _looks(node: Node, parts: list[Any]) -> list[tuple[int, ...]] | None:
    """Return each part's arguments for the slice or select; None if sizes are free."""
    dim = argument_value(node, "dim")
    if node.target is _UNBIND:
        return [(dim, index) for index in range(len(parts))]
    sizes = [part.shape[dim] for part in parts if isinstance(part, Tensor)]
    if len(sizes) < len(parts) or not all(isinstance(size, int) for size in sizes):
        return None
    ends = list(accumulate(sizes))
    return [(dim, end - size, end) for size, end in zip(sizes, ends, strict=True)]
