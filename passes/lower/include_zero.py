"""Include zero in ranges found in each call, where Inductor's compiled code omits it."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.qdq import CHOOSE_QPARAMS
from quantfx.patterns.schema import resolve_op

_AMIN = resolve_op("aten.amin.default")
_AMAX = resolve_op("aten.amax.default")
_CLAMP = resolve_op("aten.clamp.default")
_STACK = resolve_op("aten.stack.default")


class IncludeZero(GraphPass):
    """``choose_qparams(x) -> choose_qparams([min(amin(x), 0), max(amax(x), 0)])``.

    The operator itself includes zero, so its result does not change. torch 2.13: Inductor's
    decomposition (``_inductor/decomposition.py``) does not, and clamps the zero point, so a tensor
    with only positive or only negative values gets a scale that cannot hold it.
    """

    name = "include-zero"
    counts = "widened"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite every affine dynamic range."""
        widened = 0
        for node in editor.graph.find_nodes(op="call_function", target=CHOOSE_QPARAMS):
            source = node.args[0]
            if isinstance(source, Node):
                node.args = (_ends(editor, node, source), *node.args[1:])
                widened += 1
        return widened


def _ends(editor: Editor, node: Node, source: Node) -> Node:
    def call(target: Any, *args: Any) -> Node:
        return editor.call(target, args, like=source, before=node)

    low = call(_CLAMP, call(_AMIN, source), None, 0)
    high = call(_CLAMP, call(_AMAX, source), 0)
    return call(_STACK, [low, high])
