"""Write views without the sizes that they keep, so that no size of theirs is computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import resolve_op
from quantfx.patterns.sizes import known_true, likely

_FLATTEN = resolve_op("aten.flatten.using_ints")
_UNFLATTEN = resolve_op("aten.unflatten.int")
_RESHAPES = tuple(map(resolve_op, ("aten.reshape.default", "aten.view.default")))
_Size = int | torch.SymInt


class SizeFreeViews(GraphPass):
    """``reshape(x, [b, n, 12, -1]) -> unflatten(x, 2, [12, -1])``, where b and n are computed.

    Likewise ``reshape(x, [b, n, -1]) -> flatten(x, 2, 3)``, and both in turn. Memory is viewed in
    the same way. A reshape of dimensions that are not known to be equal is kept.
    """

    name = "size-free-views"
    optional = True

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite every reshape with a computed size."""
        count = 0
        for target in _RESHAPES:
            for node in editor.graph.find_nodes(op="call_function", target=target):
                count += len(node.all_input_nodes) > 1 and _rewrite(editor, node)
        return count


def _rewrite(editor: Editor, node: Node) -> bool:
    source: Node = node.all_input_nodes[0]
    old, new = source.meta["val"].shape, node.meta["val"].shape
    first = _equal(old, new)
    last = _equal(old[first:][::-1], new[first:][::-1])
    before, after = old[first : len(old) - last], new[first : len(new) - last]
    if not before or not after:
        return False
    sizes = [_known(size) for size in after]
    if len(after) > 1 and (sizes.count(-1) > 1 or 0 in sizes):
        return False
    made = source
    if len(before) > 1:
        args = (made, first, first + len(before) - 1)
        made = editor.call(_FLATTEN, args, like=node, before=node)
    if len(after) > 1:
        made = editor.call(_UNFLATTEN, (made, first, sizes), like=node, before=node)
    made.meta["val"] = node.meta["val"]
    sizes_given = [each for each in node.all_input_nodes if each is not source]
    editor.replace(node, made)
    editor.erase_unused(*sizes_given)
    return True


def _known(size: _Size) -> int:
    """Return a size; -1 if it is free. Arithmetic on sizes may yield a number as a SymInt."""
    guess = likely(size, fallback=-1)
    return guess if known_true(size == guess) else -1


def _equal(old: Sequence[_Size], new: Sequence[_Size]) -> int:
    """Return how many leading sizes are equal, whatever the free sizes are."""
    count = 0
    for one, other in zip(old, new, strict=False):
        if not known_true(one == other):
            break
        count += 1
    return count
