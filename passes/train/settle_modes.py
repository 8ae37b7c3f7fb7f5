"""Fix a trained graph in evaluation mode."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

from quantfx.passes.capture.switch_modes import cumulative_momentum
from quantfx.passes.export.training_noise import is_noise
from quantfx.passes.graph.batch_norm import counter_of
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.facts import TRAINABLE
from quantfx.passes.graph.graphs import module_calls
from quantfx.passes.layers.mode_node import Mode
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import arguments, is_operator_call, overload


class SettleModes(GraphPass):
    """Undo ``switch-modes`` with the literals of evaluation.

    Batch counters stop, and noise that is for training only is removed.
    """

    name = "settle-modes"
    counts = "settled"
    breaks = frozenset({TRAINABLE})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Replace every mode node."""
        for node in filter(is_noise, editor.graph.find_nodes(op="call_module")):
            editor.replace(node, node.all_input_nodes[0])
            delattr(editor.module, str(node.target))
        for node, _ in module_calls(editor.module, Mode):
            _settle(editor, node, False)
            delattr(editor.module, str(node.target))
        averages = editor.graph.find_nodes(op="call_function", target=cumulative_momentum)
        for node in averages:
            _settle(editor, node, 0.0)  # what nn.BatchNorm2d passes in evaluation
        if editor.edits:
            editor.drop_unused_attributes()
        return editor.edits


def _settle(editor: Editor, node: Node, value: object) -> None:
    for user in reversed(list(node.users)):  # a counter may read another counter
        if counter_of(user) is not None:
            editor.erase(user)
        elif user.target is operator.mul:
            _settle(editor, user, 0.0)
        else:
            _put(user, node, value)
    editor.erase(node)


def _put(user: Node, node: Node, value: object) -> None:
    """Pass ``value`` for ``node``, and omit trailing defaults, as torch.export does."""

    def put(argument: Any) -> Any:
        return value if argument is node else argument

    user.args = tuple(put(argument) for argument in user.args)
    user.kwargs = {name: put(argument) for name, argument in user.kwargs.items()}
    if not is_operator_call(user):
        return
    defaults = [argument.default for argument in arguments(overload(user)).values()]
    kept = list(user.args)
    while kept and not isinstance(kept[-1], Node) and kept[-1] == defaults[len(kept) - 1]:
        kept.pop()
    user.args = tuple(kept)
