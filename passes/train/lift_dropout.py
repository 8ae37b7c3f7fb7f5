"""Remove the dropouts of training while templates match."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.export.training_noise import is_noise
from quantfx.passes.graph.dropouts import DROPOUTS
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.slots import slots_of
from quantfx.passes.layers.lifted_dropout import KEY, LiftedDropout, dropouts_of, set_dropouts
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import argument_value, overload


class LiftDropout(GraphPass):
    """``add(dropout(linear(x)), y) -> add(linear(x), y)``; place-dropout undoes it.

    Inference has no dropouts and no other noise. Training should round what inference fuses and
    quantizes, so templates match across dropouts, and observers record ranges before them.
    """

    name = "lift-dropout"
    counts = "lifted"
    provides = frozenset({"dropout-lifted"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Lift each dropout that follows ``train()`` and ``eval()``."""
        lifted = 0
        for node in list(editor.graph.nodes):
            own = _note_for(node)
            if own is not None:
                _lift(editor, node, own)
                lifted += 1
        return lifted


def _note_for(node: Node) -> LiftedDropout | None:
    """Return the note for ``node``; None if ``node`` stays."""
    meta = {key: value for key, value in node.meta.items() if key != KEY}
    if is_noise(node):
        return LiftedDropout(str(node.target), (), node.name, meta)
    if node.target not in DROPOUTS or not isinstance(argument_value(node, "train"), Node):
        return None
    p = argument_value(node, "p")
    # A computed value could not be put back elsewhere, nor would it survive without readers.
    is_number = isinstance(p, (int, float))
    return LiftedDropout(overload(node), (float(p),), node.name, meta) if is_number else None


def _lift(editor: Editor, node: Node, own: LiftedDropout) -> None:
    [inner] = dropouts_of(node).values() or [()]
    for reader in list(node.users):
        noted = dropouts_of(reader)
        noted |= {slot: (*inner, own) for slot, feeds in slots_of(reader) if feeds is node}
        set_dropouts(reader, noted)
    editor.replace(node, node.all_input_nodes[0])
