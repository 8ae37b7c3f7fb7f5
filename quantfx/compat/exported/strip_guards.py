"""Remove the input checks that torch.export puts into a graph."""

from __future__ import annotations

from torch.fx import GraphModule

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context, Pass, PassResult

_GUARDS = "_guards_fn"  # torch 2.13's name of the module that checks


class StripGuards(Pass):
    """``_guards_fn(x); y = f(x) -> y = f(x)``; the checking module is removed with its call."""

    name = "strip-guards"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Erase the calls; only the top graph has any."""
        editor = Editor(module, self.name)
        for node in module.graph.find_nodes(op="call_module", target=_GUARDS):
            editor.erase(node)
        if hasattr(module, _GUARDS):
            delattr(module, _GUARDS)
        return PassResult(stats={"stripped": editor.edits})
