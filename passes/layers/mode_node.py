"""Whether a graph is training, as a value that its operators take as an argument."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import module_calls
from quantfx.passes.layers.saved_flags import SavedFlags

MODE, BATCH_NORM_MODE = "training_mode", "batch_norm_mode"


class Mode(SavedFlags):
    """Yields its own ``training`` flag, so that ``train()`` and ``eval()`` switch operators.

    A graph calls it and passes the result on: ``batch_norm(..., training=mode())``.

    Attributes:
        frozen: Yield False even while training.
    """

    saved = ("frozen",)

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False

    def forward(self) -> bool:
        """Return whether to behave as in training."""
        return self.training and not self.frozen


def mode_node(editor: Editor, name: str) -> Node:
    """Return the node at the head of the graph that yields the mode ``name``."""
    for call, _ in module_calls(editor.module, Mode):
        if str(call.target).startswith(name):
            return call
    nodes = list(editor.graph.nodes)
    first = next(node for node in nodes if node.op != "placeholder")
    mode = Mode().train(editor.module.training)
    # Like the very first node: an input, which belongs to no module.
    return editor.call_module(editor.free_name(name), mode, before=first, like=nodes[0], val=True)
