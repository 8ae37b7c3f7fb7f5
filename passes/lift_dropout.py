"""Take the dropouts of training out of sight while templates match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.base import Context, Pass, PassResult
from quantfx.passes.editor import Editor
from quantfx.passes.graphs import all_graphs
from quantfx.passes.lifted_dropout import KEY, LiftedDropout, dropouts_of, set_dropouts
from quantfx.passes.remove_dropout import DROPOUTS
from quantfx.passes.slots import slots_of
from quantfx.patterns.schema import argument_value, overload


@dataclass(frozen=True)
class LiftDropout(Pass):
    """``add(dropout(linear(x)), y) -> add(linear(x), y)``, to be undone by place-dropout.

    Inference has no dropouts, and what is fused and quantized there should be what is fused and
    rounded in training: matched across them, with ranges from in front of them.
    """

    name: ClassVar[str] = "lift-dropout"
    provides: ClassVar[frozenset[str]] = frozenset({"dropout-lifted"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Lift each dropout that follows ``train()`` and ``eval()``."""
        lifted = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for node in list(graph_module.graph.nodes):
                if node.target in DROPOUTS and isinstance(argument_value(node, "train"), Node):
                    _lift(editor, node)
                    lifted += 1
        return PassResult(lifted > 0, stats={"lifted": lifted})


def _lift(editor: Editor, node: Node) -> None:
    meta = {key: value for key, value in node.meta.items() if key != KEY}
    inner = dropouts_of(node).get("input", ())
    own = LiftedDropout(overload(node), argument_value(node, "p"), node.name, meta)
    for reader in list(node.users):
        noted = dropouts_of(reader)
        noted |= {slot: (*inner, own) for slot, feeds in slots_of(reader) if feeds is node}
        set_dropouts(reader, noted)
    editor.replace(node, node.all_input_nodes[0])
