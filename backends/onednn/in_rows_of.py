"""Give the matrix result of a kernel the dimensions of its input's rows."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.patterns.schema import resolve_op

_EXPAND = resolve_op("aten.expand.default")
_NARROW = resolve_op("aten.narrow.default")
_RESHAPE_AS = resolve_op("aten.reshape_as.default")


def in_rows_of(x: Node, result: Node, *, width: int, editor: Editor, before: Node) -> Node:
    """Return ``result``, a matrix with ``width`` columns, in the dimensions of ``x`` but the last.

    The example's sizes are not written into the graph, as calls may have others. Sizes are not read
    either. torch 2.13: Dynamo removes a second ``sym_size`` of one symbol from the graph that it
    compiles, which then disagrees with its own list of nodes (IndexError at the next new size).

    Args:
        x: The tensor whose rows the kernel read.
        result: One row for each of these rows.
        width: Width of the result's rows.
        editor: Editor of the graph.
        before: The node to write before.
    """
    dims = x.meta["val"].dim()
    if dims == 2:
        return result
    column = editor.call(_NARROW, (x, -1, 0, 1), before=before)
    sizes = [*[-1] * (dims - 1), width]
    form = editor.call(_EXPAND, (column, sizes), before=before)
    return editor.call(_RESHAPE_AS, (result, form), before=before)
