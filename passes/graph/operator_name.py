"""The name that reports use for a node's operator, with its namespace."""

from __future__ import annotations

import operator

import torch
from torch.fx import Node

from quantfx.patterns.schema import is_operator_call


def operator_name(node: Node) -> str:
    """Return what ``node`` calls, e.g. ``aten.relu.default``, ``higher_order.cond``."""
    target = node.target
    if is_operator_call(node) or isinstance(target, str):
        return str(target)
    module = getattr(target, "__module__", type(target).__module__)
    name = getattr(target, "__qualname__", None) or getattr(target, "__name__", repr(target))
    return f"{module}.{name}".removeprefix("torch.ops.").removeprefix("_")


def namespace(node: Node) -> str:
    """Return the library that an operator belongs to: ``aten`` for torch's own."""
    return operator_name(node).partition(".")[0]


def is_bookkeeping(node: Node) -> bool:
    """Whether ``node`` is Python arithmetic on sizes, or takes an element of a result.

    torch.export writes these as ``operator.*``, ``math.*`` and ``torch.sym_*``, which are not
    operators of the model. The same functions on tensors are operators.
    """
    if is_operator_call(node) or operator_name(node).startswith("higher_order."):
        return False
    if node.target is operator.getitem:
        return True
    value = node.meta.get("val")
    return isinstance(value, (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool))
