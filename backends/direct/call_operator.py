"""Call regions by their operator, which compilers keep unchanged."""

from __future__ import annotations

from torch.fx import Node

from quantfx.backends.direct.operator import region_operator
from quantfx.backends.direct.program_text import pack_constants, write_program
from quantfx.backends.direct.region import Region
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import module_calls
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.lowered import CUSTOM_KEY


class CallOperator(GraphPass):
    """``region_0(x) -> direct_region([x], [constants], "...")``, for compilers."""

    name = "call-operator"
    counts = "regions"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite the call of every region."""
        calls = list(module_calls(editor.module, Region))
        for node, region in calls:
            _rewrite(editor, node, region)
        return len(calls)


def _rewrite(editor: Editor, node: Node, region: Region) -> None:
    memory = pack_constants(region.graph)
    constants = editor.constant(f"{node.target}_constants", memory, like=node, before=node)
    args = (list(node.args), [constants], write_program(region.graph, packed=True))
    call = editor.call(region_operator(), args, like=node, before=node, val=node.meta.get("val"))
    call.meta[CUSTOM_KEY] = node.meta.get(CUSTOM_KEY, {})
    editor.replace(node, call)
    delattr(editor.module, str(node.target))
