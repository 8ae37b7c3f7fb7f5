"""Give folded weights the names that users of PT2E look for."""

from __future__ import annotations

import itertools

from torch.fx import Node

from quantfx.passes.graph.editor import PROVENANCE_KEY, Editor
from quantfx.passes.graph.graphs import is_stored
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.qdq import dequantizes

_PREFIX = "_frozen_param"


class NameFrozenParams(GraphPass):
    """``conv.weight_s8 -> _frozen_param0``, counted in graph order.

    The node keeps the meta of the float tensor's node, except the fake value, which no longer fits.
    """

    name = "name-frozen-params"
    counts = "edits"
    requires = frozenset({"weights-folded"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rename in every graph."""
        renamed: dict[str, Node] = {}
        for node in editor.graph.find_nodes(op="get_attr"):
            if any(dequantizes(user) and user.args[0] is node for user in node.users):
                _rename(editor, node, renamed)
        return editor.edits


def _rename(editor: Editor, node: Node, renamed: dict[str, Node]) -> None:
    old = str(node.target)
    value = editor.stored(node)
    if value is None or old.startswith(_PREFIX):
        return
    if old not in renamed:
        free = (f"{_PREFIX}{count}" for count in itertools.count())
        name = next(name for name in free if not is_stored(editor.module, name))
        renamed[old] = editor.constant(name, value, before=node)
        for key in ("val", PROVENANCE_KEY):
            renamed[old].meta.pop(key, None)
    editor.replace(node, renamed[old])
