"""Keep rows contiguous for a kernel that needs it, if Inductor would lay them out otherwise."""

from __future__ import annotations

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.backends.inductor.torch_internals import force_strides
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.patterns.schema import resolve_op

_INT8PACK = resolve_op("aten._weight_int8pack_mm.default")


class WholeRows(Pass):
    """``_weight_int8pack_mm(x, w, s) -> _weight_int8pack_mm(rows(x), w, s)``, inside Inductor.

    torch 2.13: a copy takes the layout of its source, and the kernel raises for an x whose rows are
    not contiguous.
    """

    name = "whole-rows"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Fix the layout of every activation of that kernel."""
        editor = Editor(module, self.name)
        for node in module.graph.find_nodes(op="call_function", target=_INT8PACK):
            x = node.args[0]
            value = x.meta.get("val") if isinstance(x, Node) else None
            if isinstance(x, Node) and isinstance(value, Tensor):
                op = force_strides()
                rows = editor.call(op, (x, [value.shape[1], 1]), like=x, before=node, val=value)
                node.args = (rows, *node.args[1:])
        return PassResult(stats={"fixed": editor.edits})
