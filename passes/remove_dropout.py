"""Remove dropout that is off: it is the identity then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.base import Context, Pass, PassResult
from quantfx.passes.editor import Editor
from quantfx.passes.graphs import all_graphs
from quantfx.patterns.schema import argument_value, resolve_op

_KINDS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
DROPOUTS = tuple(resolve_op(f"aten.{kind}.default") for kind in _KINDS)
IN_PLACE_DROPOUTS = tuple(resolve_op(f"aten.{kind}_.default") for kind in _KINDS)


def is_off(node: Node) -> bool:
    """Whether ``node`` is a dropout that returns its very input."""
    if node.target not in DROPOUTS and node.target not in IN_PLACE_DROPOUTS:
        return False
    return argument_value(node, "train") is False or argument_value(node, "p") == 0.0


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
        return PassResult(removed > 0, stats={"removed": removed})
