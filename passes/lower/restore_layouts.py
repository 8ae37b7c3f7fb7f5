"""Restore the captured layout of tensors for operators that read memory, not values."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node

from quantfx.passes.graph.aliasing import MAY_COPY, overwritten, views_of
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.memory_order import memory_order
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.qdq import dequantizes
from quantfx.patterns.schema import resolve_op

# The results of these depend on where values are in memory.
_READ_STRIDES = frozenset(
    resolve_op(f"aten.{name}")
    for name in (
        "as_strided.default",
        "as_strided_.default",
        "as_strided_copy.default",
        "as_strided_scatter.default",
        "view.dtype",
        "view_copy.dtype",
        "view_as_complex.default",
        "view_as_complex_copy.default",
        "view.default",
        "view_as.default",
        "sym_stride.int",
    )
)
_KNOWN = ("aten", "prims", "quantized_decomposed")
_CONTIGUOUS = resolve_op("aten.contiguous.default")
_PERMUTE = resolve_op("aten.permute.default")


class RestoreLayouts(GraphPass):
    """``as_strided(relu(x)) -> as_strided(contiguous(relu(x)))``, after operators with a kernel.

    Kernels may return other layouts than the operators they stand for: convolutions return
    channels_last. Where an operator reads strides, the result that it reads gets its strides at
    capture:

    1. ``as_strided``, views as another dtype, and operators of other libraries, unless tagged
       ``flexible_layout``
    2. ``view`` and ``view_as``, which ``normalize-ops`` leaves where the model writes to the memory
       (an in-place operator that became int8 does not write to it any more)
    3. ``reshape`` and the like of memory that is written to, which must not copy; without writes
       they are correct in every layout
    """

    name = "restore-layouts"
    counts = "restored"
    requires = frozenset({"qdq"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Lay out each tensor once for all readers."""
        written = overwritten(editor.graph)
        behind = _behind_kernels(editor.graph, editor.path != "")
        layouts = _Layouts(editor, behind, written)
        for node in list(editor.graph.nodes):
            if _reads_strides(node) or (node.target in MAY_COPY and node in written):
                layouts.restore(node)
        return len(layouts.made)


def _reads_strides(node: Node) -> bool:
    target = node.target
    if not isinstance(target, OpOverload):
        return False
    foreign = target.namespace not in _KNOWN and torch.Tag.flexible_layout not in target.tags
    return foreign or target in _READ_STRIDES


def _behind_kernels(graph: Graph, is_nested: bool) -> set[Node]:
    """Return the nodes whose layout depends on the results of kernels."""
    found: set[Node] = set()
    for node in graph.nodes:
        starts = dequantizes(node) or annotation_of(node) is not None
        if starts or (is_nested and node.op == "placeholder") or found & {*node.all_input_nodes}:
            found.add(node)
    return found


class _Layouts:
    """The tensors of one graph whose layouts are restored.

    Args:
        editor: Editor of the graph.
        behind: The nodes whose layout depends on kernels.
        written: The tensors that are written to.
    """

    def __init__(self, editor: Editor, behind: set[Node], written: Mapping[Node, Node]) -> None:
        self._editor = editor
        self._behind = behind
        self._written = written
        self.made: dict[Node, Node] = {}

    def restore(self, reader: Node) -> None:
        """Let ``reader`` read memory in the layout of the capture."""
        for root, user in list(_into_memory(reader)):
            order = _order(root) if root in self._behind else None
            if order is None or user in self.made.values():
                continue
            if root not in self.made:
                self.made[root] = self._laid_out(root, order)
            user.replace_input_with(root, self.made[root])

    def _laid_out(self, root: Node, order: list[int]) -> Node:
        """Insert the layout change after ``root``; readers that may see a write read its result."""
        users = list(root.users)
        result = root
        permuted = order != sorted(order)
        if permuted:
            result = self._call(_PERMUTE, (result, order), after=result)
        result = self._call(_CONTIGUOUS, (result,), after=result)
        if permuted:
            back = [order.index(axis) for axis in range(len(order))]
            result = self._call(_PERMUTE, (result, back), after=result)
        if root in self._written:
            for user in users:
                user.replace_input_with(root, result)
        return result

    def _call(self, target: OpOverload[..., Any], args: tuple[Any, ...], after: Node) -> Node:
        return self._editor.call(target, args, like=args[0], after=after)


def _into_memory(reader: Node) -> Iterator[tuple[Node, Node]]:
    """Yield each tensor with its own memory that ``reader`` reads, and the node that reads it."""
    pending, seen = [(each, reader) for each in reader.all_input_nodes], {reader}
    while pending:
        node, user = pending.pop()
        sources = [node.args[0]] if node.target is operator.getitem else views_of(node)
        above = [each for each in sources if isinstance(each, Node)]
        if node.target is operator.getitem and not views_of(above[0]):
            above = []
        if not above:
            yield node, user
        elif node not in seen:
            seen.add(node)
            pending += [(each, node) for each in above]


def _order(node: Node) -> list[int] | None:
    value = node.meta.get("val")
    return memory_order(value) if isinstance(value, Tensor) else None
