"""The node of a graph that yields a mode, created if missing."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import module_calls
from quantfx.passes.layers.mode import Mode

MODE, BATCH_NORM_MODE = "training_mode", "batch_norm_mode"


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
