"""Store two 4-bit integers in a byte."""

from __future__ import annotations

import torch
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.halves import UNPACK_HALVES, pack_halves
from quantfx.passes.quant.nibbles import HIGH, LOW
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value


class PackHalves(GraphPass):
    """``f(dq(w_s8)) -> f(dq(unpack_halves(w_u8)))`` for weights in -8..7, in half the bytes.

    Only for weights that templates of mode ``weight-only-4bit`` read: other kernels read int8.
    """

    name = "pack-halves"
    counts = "packed"
    requires = frozenset({"qdq"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Pack each stored matrix that only such templates read."""
        packed = 0
        for node in editor.graph.find_nodes(op="get_attr"):
            value = editor.stored(node)
            if value is None or value.dtype != torch.int8 or value.dim() != 2:
                continue
            if not node.users or not all(map(_is_of_4_bits, node.users)):
                continue
            name = f"{str(node.target).removesuffix('_s8')}_4bit"
            bytes_ = editor.constant(name, pack_halves(value), like=node, before=node)
            made = editor.call(UNPACK_HALVES, (bytes_, value.shape[1]), like=node, before=node)
            editor.remark("applied", made.name, f"reads two integers per byte of {bytes_.target}")
            editor.replace(node, made)
            packed += 1
        return packed


def _is_of_4_bits(node: Node) -> bool:
    if node.target is not DEQUANTIZE_PER_CHANNEL:
        return False
    low, high = (argument_value(node, name) for name in ("quant_min", "quant_max"))
    annotations = [annotation_of(user) for user in node.users]
    asked = all(each is not None and each.mode == "weight-only-4bit" for each in annotations)
    return bool(asked and annotations and low >= LOW and high <= HIGH)
