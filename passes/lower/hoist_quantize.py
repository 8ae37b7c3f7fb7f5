"""Quantize before values are moved, not after: the producer's kernel can then yield integers."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.permits import may
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.qdq import QUANTIZE_PER_TENSOR, dequantizes, dtype_of, qparams_of
from quantfx.patterns.schema import overload, resolve_op

# Operators whose result holds only values of their first argument.
MOVES = frozenset(
    resolve_op(f"aten.{name}")
    for name in (
        "channel_shuffle.default",
        "flip.default",
        "pixel_shuffle.default",
        "pixel_unshuffle.default",
        "roll.default",
        "view.default",
        "reshape.default",
        "permute.default",
        "transpose.int",
        "flatten.using_ints",
        "squeeze.dim",
        "squeeze.dims",
        "unsqueeze.default",
    )
)
# torch 2.13 has these for uint8 but not for int8.
_OF_BYTES = frozenset(resolve_op(f"aten.upsample_nearest{n}d.vec") for n in (1, 2, 3))


class HoistQuantize(Pass):
    """Let int8 flow through moves that no template annotates; the integers are the same.

    1. ``q(view(x)) -> view(q(x))``, for chains of moves as well
    2. ``q(dq(i)) -> i``, where both have the same qparams

    Only if nothing else reads the float tensors in between.
    """

    name = "hoist-quantize"
    optional = True
    requires = frozenset({"qdq"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Move each quantize up as far as possible."""
        hoisted = cancelled = 0
        for path, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            quantizes = graph_module.graph.find_nodes(
                op="call_function", target=QUANTIZE_PER_TENSOR
            )
            for node in quantizes:
                source = node
                site = Site(path, node.all_input_nodes[0].name)
                if (_move_before(node) or _is_undone(node)) and not may(self.name, site=site):
                    continue
                while (move := _move_before(source)) is not None:
                    source = _hoist(editor, source, move)
                    hoisted += 1
                cancelled += _cancel(editor, source) if source is not node else 0
        stats = {"hoisted": hoisted, "cancelled": cancelled}
        return PassResult(stats=stats)


def _move_before(quantize: Node) -> Node | None:
    """Return the move whose only reader is ``quantize``, unless it is annotated."""
    move = quantize.args[0]
    moves = MOVES | _OF_BYTES if dtype_of(quantize) == torch.uint8 else MOVES
    if not isinstance(move, Node) or move.target not in moves or annotation_of(move) is not None:
        return None
    source = move.args[0]
    alone = len(move.users) == 1 and isinstance(source, Node) and len(source.users) == 1
    return move if alone and isinstance(source, Node) and source.op == "call_function" else None


def _hoist(editor: Editor, quantize: Node, move: Node) -> Node:
    source = move.args[0]
    above = editor.call(
        overload(quantize), (source, *quantize.args[1:]), like=quantize, before=move
    )
    moved = editor.call(
        overload(move),
        (above, *move.args[1:]),
        kwargs=dict(move.kwargs),
        like=move,
        before=quantize,
    )
    editor.replace(quantize, moved)
    editor.erase(move)
    return above


def _is_undone(quantize: Node) -> bool:
    """Whether ``quantize`` undoes the dequantize that it reads: its result is those integers."""
    source = quantize.args[0]
    return (
        isinstance(source, Node)
        and dequantizes(source)
        and qparams_of(source) == qparams_of(quantize)
        and isinstance(source.args[0], Node)
    )


def _cancel(editor: Editor, quantize: Node) -> bool:
    if not _is_undone(quantize):
        return False
    source = quantize.all_input_nodes[0]
    editor.replace(quantize, source.all_input_nodes[0])
    editor.erase(source)
    return True
