"""The kernel family ``lookup``: embeddings and bags of int8 or 4-bit rows.

``embedding(dq(w), i) -> float(embedding(w, i)) * embedding(scales, i)``: only the rows that a call
asks for are read and made float, by operators that a compiler fuses into one loop. For 4 bits, each
half of the bytes is made float separately: joining the halves first makes a slow loop. A row with a
scale for each group of values holds 4 bits as weights of linears do, so that both may read one.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily, argument_node
from quantfx.passes.quant.halves import UNPACK_HALVES
from quantfx.passes.quant.nibbles import APART, LOW, fits_nibbles, stored_nibbles
from quantfx.passes.quant.qdq import DEQUANTIZE_GROUPS, DEQUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value, arguments, overload, resolve_op

EMBEDDING = resolve_op("aten.embedding.default")
INT8, INT4 = "rows.int8", "rows.int4"
_ADD = resolve_op("aten.add.Tensor")
_AND = resolve_op("aten.bitwise_and.Scalar")
_ARANGE = resolve_op("aten.arange.default")
_CAT = resolve_op("aten.cat.default")
_EQ = resolve_op("aten.eq.Scalar")
_FLATTEN = resolve_op("aten.flatten.using_ints")
_MASKED_FILL = resolve_op("aten.masked_fill.Scalar")
_MUL = resolve_op("aten.mul.Tensor")
_NEW_ZEROS = resolve_op("aten.new_zeros.default")
_SHIFT = resolve_op("aten.__rshift__.Scalar")
_SIZE = resolve_op("aten.sym_size.int")
_SLICE = resolve_op("aten.slice.Tensor")
_TO = resolve_op("aten.to.dtype")
_UNFLATTEN = resolve_op("aten.unflatten.int")
_UNSQUEEZE = resolve_op("aten.unsqueeze.default")


@dataclass(frozen=True)
class Lookup(KernelFamily):
    """Lookups in integer tables, in torch's plain operators."""

    name: ClassVar[str] = "lookup"
    kernels: ClassVar[frozenset[str]] = frozenset({INT8, INT4})

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return why the table has no integers with scales, or the reader in the way."""
        if reason := candidate.indirect("weight"):
            return reason
        dequantize, name = candidate.dequantize("weight"), candidate.quantized("weight").name
        by_groups = dequantize.target is DEQUANTIZE_GROUPS
        by_rows = dequantize.target is DEQUANTIZE_PER_CHANNEL
        if not by_groups and (not by_rows or argument_value(dequantize, "axis")):
            return f"{name} does not have one scale per row or group"
        table, _ = _stored(candidate)
        if editor.stored(table) is None:
            return f"{name} is computed, not a stored table"
        zeros = editor.stored(argument_node(dequantize, "zero_points"))
        if zeros is None or bool(zeros.any()):
            return f"{name} has zero points"
        if candidate.anchor.target is EMBEDDING:
            return None
        return _bag_reason(candidate.anchor)

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the lookup, and for a bag the sum of the found rows."""
        node = candidate.anchor
        found = _rows(candidate, editor)
        call = found if node.target is EMBEDDING else _bag(editor, node, found)
        return Emission(call, node, candidate.kernel)


def _stored(candidate: Candidate) -> tuple[Node, int | None]:
    """Return the node of the table, and its number of columns if a byte holds two."""
    quantized = candidate.quantized("weight")
    if quantized.target is not UNPACK_HALVES:
        return quantized, None
    return argument_node(quantized, "packed"), argument_value(quantized, "columns")


def _rows(candidate: Candidate, editor: Editor) -> Node:
    """Write ``(*indices, columns)``, float32: the rows times their scales."""
    if candidate.dequantize("weight").target is DEQUANTIZE_GROUPS:
        return _rows_in_groups(candidate, editor)
    node = candidate.anchor
    indices = argument_node(node, "indices")
    table, columns = _stored(candidate)
    found = editor.call(EMBEDDING, (table, indices), before=node)
    scales = argument_node(candidate.dequantize("weight"), "scales")
    scales = editor.call(_UNSQUEEZE, (scales, -1), before=node)
    factors = editor.call(EMBEDDING, (scales, indices), before=node)
    if columns is None:
        values = editor.call(_TO, (found, torch.float32), before=node)
        return editor.call(_MUL, (values, factors), before=node)
    rows = _halves(editor, node, found, factors)
    return rows if columns % 2 == 0 else editor.call(_SLICE, (rows, -1, 0, columns), before=node)


def _rows_in_groups(candidate: Candidate, editor: Editor) -> Node:
    """Write the rows of a table whose scales are ``(rows, groups)``."""
    node, dequantize = candidate.anchor, candidate.dequantize("weight")
    table, indices = candidate.quantized("weight"), argument_node(node, "indices")
    scales, group = argument_node(dequantize, "scales"), argument_value(dequantize, "group_size")
    factors = editor.call(EMBEDDING, (scales, indices), before=node)
    factors = editor.call(_UNSQUEEZE, (factors, -1), before=node)
    packs = fits_nibbles(dequantize)
    if packs:
        table = stored_nibbles(editor, table, before=node)
    found = editor.call(EMBEDDING, (table, indices), before=node)
    count = scales.meta["val"].shape[1]
    parts = [count, group // (2 * APART), APART] if packs else [count, group]
    found = editor.call(_UNFLATTEN, (found, -1, parts), before=node)
    if packs:
        factors = editor.call(_UNSQUEEZE, (factors, -1), before=node)
        values = _halves(editor, node, found, factors)
    else:
        values = editor.call(_TO, (found, torch.float32), before=node)
        values = editor.call(_MUL, (values, factors), before=node)
    return editor.call(_FLATTEN, (values, -len(parts), -1), before=node)


def _halves(editor: Editor, node: Node, found: Node, factors: Node) -> Node:
    """Write the lower halves of bytes and behind them the upper ones, times ``factors``."""
    sides: list[Node] = []
    for half, by in ((_AND, 15), (_SHIFT, 4)):
        values = editor.call(half, (found, by), before=node)
        values = editor.call(_TO, (values, torch.float32), before=node)
        values = editor.call(_ADD, (values, LOW), before=node)
        sides.append(editor.call(_MUL, (values, factors), before=node))
    return editor.call(_CAT, (sides, -1), before=node)


def _bag(editor: Editor, node: Node, rows: Node) -> Node:
    """Write the bag again, over the table of found rows, in their order.

    A bag with ``padding_idx`` reads a row of zeros for that index, and leaves it out.
    """
    indices = argument_node(node, "indices")
    count: Any = indices.meta["val"].shape[0]
    if not isinstance(count, int):
        count = editor.call(_SIZE, (indices, 0), before=node)
    kwargs = {"dtype": indices.meta["val"].dtype}
    order = editor.call(_ARANGE, (count,), kwargs=kwargs, like=node, before=node)
    target = overload(node)
    given = {name: argument_value(node, name) for name in arguments(target)}
    padding = given.get("padding_idx")
    if padding is not None:
        none = editor.call(_NEW_ZEROS, (rows, [1, rows.meta["val"].shape[1]]), before=node)
        rows = editor.call(_CAT, ([none, rows],), before=node)
        left_out = editor.call(_EQ, (indices, padding), before=node)
        order = editor.call(_ADD, (order, 1), before=node)
        order = editor.call(_MASKED_FILL, (order, left_out, 0), before=node)
        given["padding_idx"] = 0
    given |= {"weight": rows, "indices": order}
    return editor.call(target, tuple(given.values()), before=node, val=node.meta.get("val"))


def _bag_reason(node: Node) -> str | None:
    """Return the reader of more than the sums, some of which counts rows of the table."""
    for user in node.users:
        if user.target is not operator.getitem or user.args[1] != 0:
            return f"{user.name} reads more of {node.name} than its sums"
    return None
