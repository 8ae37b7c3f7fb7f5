"""The memory order in which readers want a value."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.runtime.values import in_order
from quantfx.patterns.schema import argument_value, overload, resolve_op

_PERMUTE = resolve_op("aten.permute.default")
_TURNS = (_PERMUTE, resolve_op("aten.transpose.int"))
# Operators that prefer a source with channels last.
_WINDOWED = ("conv1d", "conv2d", "conv3d", "pool", "conv_transpose")


def turned(node: Node, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
    """Return the layout that becomes contiguous when the only reader of ``node`` permutes it."""
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    if reader is None or reader.target not in _TURNS:
        return None
    axes = torch.empty(shape, device="meta")
    turned = overload(reader)(axes, *reader.args[1:], **reader.kwargs)
    if reader.target is _PERMUTE:
        order = [axis % len(shape) for axis in argument_value(reader, "dims")]
        back = [order.index(axis) for axis in range(len(order))]
        return in_order(turned.shape, dtype).permute(back)
    back_again = in_order(turned.shape, dtype)
    first, second = (argument_value(reader, name) for name in ("dim0", "dim1"))
    return back_again.transpose(first, second)


def is_windowed(quantize: Node) -> bool:
    """Whether a reader of a quantize is a convolution or pool."""
    readers = [user for dequantize in quantize.users for user in dequantize.users]
    names = [str(reader.target) for reader in readers]
    return any(word in name for name in names for word in _WINDOWED)
