"""Let ``train()`` and ``eval()`` switch the operators of a graph captured for training."""

from __future__ import annotations

import operator

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.errors import CaptureError
from quantfx.passes.export.align_modes import MODE_KEY
from quantfx.passes.export.training_graph import CUMULATIVE
from quantfx.passes.export.training_noise import NOISE_KEY, wrap_noise
from quantfx.passes.graph.batch_norm import counter_of
from quantfx.passes.graph.editor import Editor
from quantfx.passes.layers.mode_node import BATCH_NORM_MODE, MODE, mode_node
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import argument_value, set_argument

_BATCH_NORM = torch.ops.aten.batch_norm.default


def cumulative_momentum(batches: Tensor) -> float:
    """Return the factor of a cumulative average: 1 / number of batches, including this one."""
    return 1.0 / max(int(batches), 1)


class SwitchModes(GraphPass):
    """Arguments that differ between training and evaluation read a `Mode` instead of a literal.

    1. ``batch_norm(..., training=True) -> batch_norm(..., training=batch_norm_mode())``; flags of
       other operators likewise, but with a separate mode, so that batch norms can be frozen alone
    2. ``dropout_p=0.1 -> dropout_p=training_mode() * 0.1``
    3. ``num_batches_tracked += 1 -> num_batches_tracked += batch_norm_mode()``
    4. ``momentum=None``, a cumulative average ``-> momentum=cumulative_momentum(batches)``
    5. ``x * bernoulli(...)`` in training only ``-> training_noise(x, training_mode())``

    A graph that was not captured for training has no such arguments.
    """

    name = "switch-modes"
    counts = "switched"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite what the capture noted."""
        count = 0
        counters: dict[str, Node] = {}
        for node in list(editor.graph.nodes):
            counter = counter_of(node)
            if counter is not None:
                set_argument(node, "other", mode_node(editor, BATCH_NORM_MODE))
                counters[_owner(counter)] = counter
                count += 1
            if node.meta.get(NOISE_KEY):
                wrap_noise(editor, node)
                count += 1
            for name in node.meta.pop(MODE_KEY, ()):
                _switch(editor, node, name)
                count += 1
            if node.target is _BATCH_NORM and argument_value(node, "momentum") == CUMULATIVE:
                counter = counters.get(_owner(argument_value(node, "running_mean")))
                if counter is None:
                    raise CaptureError(
                        f"{node.name} averages over all batches (momentum=None) in a region "
                        "without gradients",
                        rule="averaged-batches",
                        site=node.name,
                        fix="give it a momentum",
                    )
                set_argument(node, "momentum", _cumulative(editor, node, counter))
                count += 1
        return count


def _switch(editor: Editor, node: Node, name: str) -> None:
    """Let the argument ``name`` of ``node`` follow the mode."""
    given = argument_value(node, name)
    if isinstance(given, bool):
        is_norm = node.target is _BATCH_NORM
        set_argument(node, name, mode_node(editor, BATCH_NORM_MODE if is_norm else MODE))
        return
    mode = mode_node(editor, MODE)
    set_argument(node, name, editor.call(operator.mul, (mode, given), before=node, val=given))


def _owner(buffer: Node) -> str:
    """Return the path of the batch norm that a buffer belongs to."""
    return str(buffer.target).rpartition(".")[0]


def _cumulative(editor: Editor, norm: Node, batches: Node) -> Node:
    """Return the momentum of a batch norm that averages over all batches equally."""
    return editor.call(cumulative_momentum, (batches,), before=norm, val=1.0)
