"""The kernel family ``recurrent``: recurrent layers with int8 weights in one operator.

``lstm(x, h, [dq(w), ..., b, ...]) -> recurrent(x, h, [w, ...], [scales, ...], [b, ...])``. The
kernel rounds its inputs at each step: see ``layer.py``.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from quantfx.backends.recurrent.layer import KINDS, MOST
from quantfx.backends.recurrent.library import runtime
from quantfx.backends.recurrent.operator import operators
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily, argument_node
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value, overload, resolve_op

KERNEL, CELL = "quantfx.recurrent", "quantfx.recurrent_cell"
_KIND_OF = {resolve_op(f"aten.{kind}.input"): kind for kind in KINDS}
_CELL_OF = {resolve_op(f"aten.{kind}_cell.default"): kind for kind in KINDS}
_LSTM_CELL = resolve_op("aten.lstm_cell.default")
_ZEROS_LIKE = resolve_op("aten.zeros_like.default")
_FLAGS = ("num_layers", "bidirectional", "batch_first")


@dataclass(frozen=True)
class Recurrent(KernelFamily):
    """LSTM, GRU and plain recurrent layers, in C++ or, without a compiler, in torch."""

    name = "recurrent"
    kernels = frozenset({KERNEL, CELL})
    needs_process = True

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return the weight that is not of int8 rows in -127..127 with a scale each."""
        weights, _ = _parameters(candidate.anchor)
        for node in weights:
            if node.target is not DEQUANTIZE_PER_CHANNEL or argument_value(node, "axis"):
                return f"{node.name} is no weight with a scale for each row"
            stored = editor.stored(argument_node(node, "input"))
            zeros = editor.stored(argument_node(node, "zero_points"))
            if stored is None or zeros is None:
                return f"{node.name} is computed, not a stored weight"
            if bool(zeros.any()) or argument_value(node, "quant_min") < -MOST:
                return f"{node.name} has zero points, or integers below -{MOST}"
            if not stored.is_contiguous():
                return f"{node.name} is stored column by column"
        return None

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the call."""
        node = candidate.anchor
        weights, biases = _parameters(node)
        if overload(node) in _CELL_OF and biases and argument_value(node, "b_ih") is None:
            none = editor.call(_ZEROS_LIKE, (biases[0],), before=node)  # the two are told apart
            biases = [none, *biases]
        hx = argument_value(node, "hx")
        args: tuple[Any, ...] = (
            argument_node(node, "input"),
            list(hx) if isinstance(hx, (list, tuple)) else [hx],
            [argument_node(each, "input") for each in weights],
            [argument_node(each, "scales") for each in weights],
            biases,
        )
        if reason := runtime().reason:
            message = f"computed by torch, a step after the other: {reason}"
            editor.remark("applied", node.name, message, str(node.target))
        target = overload(node)
        if target in _KIND_OF:
            flags = (argument_value(node, name) for name in _FLAGS)
            args = (*args, _KIND_OF[target], *flags)
            call = editor.call(operators().sequence, args, before=node, val=node.meta.get("val"))
            return Emission(call, node, KERNEL, rounds=True)
        call = editor.call(operators().cell, (*args, _CELL_OF[target]), before=node)
        if target is not _LSTM_CELL:  # torch's operator has one result, not a list
            call = editor.call(operator.getitem, (call, 0), before=node, val=node.meta.get("val"))
        return Emission(call, node, CELL, rounds=True)


def _parameters(node: Node) -> tuple[list[Node], list[Node]]:
    """Return the weights of all layers and directions, and their biases."""
    if overload(node) in _CELL_OF:
        read = [argument_value(node, name) for name in ("b_ih", "b_hh")]
        return [argument_node(node, each) for each in ("w_ih", "w_hh")], [b for b in read if b]
    given = argument_value(node, "params")
    if not argument_value(node, "has_biases"):
        return list(given), []
    directions = 2 if argument_value(node, "bidirectional") else 1
    size = len(given) // (argument_value(node, "num_layers") * directions)
    weights: list[Node] = []
    biases: list[Node] = []
    for start in range(0, len(given), size):  # w_ih, w_hh, b_ih, b_hh and perhaps w_hr
        weights += [*given[start : start + 2], *given[start + 4 : start + size]]
        biases += given[start + 2 : start + 4]
    return weights, biases
