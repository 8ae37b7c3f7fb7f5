"""Give what a kernel made of a matrix the dimensions that the rows came in, whichever they are."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.patterns.schema import resolve_op

_EXPAND = resolve_op("aten.expand.default")
_NARROW = resolve_op("aten.narrow.default")
_RESHAPE_AS = resolve_op("aten.reshape_as.default")


def in_rows_of(x: Node, result: Node, *, width: int, editor: Editor, before: Node) -> Node:
    """Return ``result``, a matrix with ``width`` columns, in the dimensions of ``x`` but the last.

    No size is written down, for one that the example had, and no call need have. Nor is one read:
    torch 2.13: Dynamo takes a second ``sym_size`` of one symbol out of the graph it compiles, and
    is then out of step with its own list of nodes (IndexError at the next new size).

    Args:
        x: What the rows were made of.
        result: A row for each of its rows.
        width: Of a row of the result.
        editor: Of the graph.
        before: Where to write.
    """
    dims = x.meta["val"].dim()
    if dims == 2:
        return result
    column = editor.call(_NARROW, (x, -1, 0, 1), before=before)
    sizes = [*[-1] * (dims - 1), width]
    form = editor.call(_EXPAND, (column, sizes), before=before)
    return editor.call(_RESHAPE_AS, (result, form), before=before)
