"""The operands of an operator, as values."""

from __future__ import annotations

import torch
from torch.fx import Node

from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import Task, Translation
from quantfx.backends.direct.runtime.values import Buffer, Value
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_TENSOR
from quantfx.patterns.schema import argument_value


def source_of(translation: Translation, task: Task) -> tuple[Value, tuple[Node, ...]]:
    """Return the value of the base's first argument, and the nodes that the step covers."""
    node = task.base.all_input_nodes[0]
    edges = (node,) if node.target is DEQUANTIZE_PER_TENSOR else ()
    return translation.value(node), (*edges, task.base)


def of_channels(translation: Translation, base: Node, name: str, less: float = 0.0) -> Value | None:
    """Return a stored argument, of one value or one per channel, in the shape of ``base``.

    Args:
        translation: Of the graph.
        base: The operator with the argument.
        name: Name of the argument.
        less: Number to subtract from it.
    """
    node = argument_value(base, name)
    if node is None:
        return None
    stored = translation.constant(node)
    if stored is None or stored.dtype != torch.float32:
        raise Untranslatable(base, f"its {name} is no stored float32 tensor")
    key = ("of channels", stored.data_ptr(), stored.numel(), less)
    value = translation.derive(key, lambda: (stored - less).contiguous())
    shape = translation.shapes[base].shape
    sizes = [1, value.numel(), *[1] * (len(shape) - 2)] if value.numel() > 1 else [1] * len(shape)
    layout = torch.empty(sizes, device="meta").expand(shape)
    return Value(Buffer(0, "constant", constant=value), layout)


def dequantizes_of(nodes: list[Node]) -> list[Node]:
    """Return those of the nodes that dequantize a tensor with one scale."""
    return [node for node in nodes if node.target is DEQUANTIZE_PER_TENSOR]
