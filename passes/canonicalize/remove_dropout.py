"""Remove dropout that is off: it is the identity then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.graph.dropouts import DROPOUTS, IN_PLACE_DROPOUTS, is_off
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.patterns.schema import argument_value


@dataclass(frozen=True)
class RemoveDropout(Pass):
    """``dropout(x, p, train=False) -> x``, also with p=0; any other in train mode stays."""

    name: ClassVar[str] = "remove-dropout"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Replace each dropout that is off by its input."""
        removed = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for target in (*DROPOUTS, *IN_PLACE_DROPOUTS):
                for node in graph_module.graph.find_nodes(op="call_function", target=target):
                    source = argument_value(node, "input" if target in DROPOUTS else "self")
                    if is_off(node) and isinstance(source, Node):
                        editor.replace(node, source)
                        removed += 1
        return PassResult(stats={"removed": removed})
