"""4-bit integers, two in a byte, as files and kernels hold them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.quant.qdq import DEQUANTIZE_GROUPS
from quantfx.passes.quant.spec import LEAST_GROUP
from quantfx.patterns.schema import argument_value

LOW, HIGH = -8, 7
# A byte holds a value and the value this many places later, so both unpack as ordered vectors.
APART = 16


def pack_nibbles(values: Tensor) -> Tensor:
    """Return int8 values in [-8, 7] as uint8, two per byte: ``(N, K) -> (N, K / 2)``.

    Each value is stored as q + 8; 16 bytes hold 32 values, the first 16 values in the low halves.

    Args:
        values: int8; the last dimension is a multiple of 32.
    """
    halves = (values - LOW).to(torch.uint8).reshape(len(values), -1, 2, APART)
    return (halves[:, :, 0] | (halves[:, :, 1] << 4)).flatten(1)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """Return the int8 values that ``pack_nibbles`` packed."""
    pieces = packed.reshape(len(packed), -1, APART)
    return (torch.stack((pieces & 15, pieces >> 4), 2).to(torch.int8) + LOW).flatten(1)


def fits_nibbles(dequantize: Node) -> bool:
    """Whether a dequantize with groups reads values that fit four bits, in whole vectors."""
    low, high = (int(argument_value(dequantize, name)) for name in ("quant_min", "quant_max"))
    whole = int(argument_value(dequantize, "group_size")) % LEAST_GROUP == 0
    return low >= LOW and high <= HIGH and whole


def stored_nibbles(editor: Editor, weight: Node, *, before: Node) -> Node:
    """Return the packed constant of ``weight``, shared by all readers of one weight."""
    values = editor.stored(weight)
    if values is None:
        raise TypeError(f"{weight.name} is not stored")
    name = f"{weight.target}_packed"
    return editor.shared_constant(name, pack_nibbles(values), like=weight, before=before)


def holds_nibbles(node: Node) -> bool:
    """Whether ``node`` reads a stored int8 weight whose values fit four bits, in whole groups."""
    readers = [n for n in node.graph.find_nodes(op="get_attr") if n.target == node.target]
    users = [user for each in readers for user in each.users]
    return bool(users) and all(
        user.target is DEQUANTIZE_GROUPS and user.args[0] in readers and fits_nibbles(user)
        for user in users
    )
