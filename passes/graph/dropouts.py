"""The operators of dropout."""

from __future__ import annotations

from torch.fx import Node

from quantfx.patterns.schema import argument_value, resolve_op

_KINDS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


DROPOUTS = tuple(resolve_op(f"aten.{kind}.default") for kind in _KINDS)


IN_PLACE_DROPOUTS = tuple(resolve_op(f"aten.{kind}_.default") for kind in _KINDS)


def is_off(node: Node) -> bool:
    """Whether ``node`` is a dropout that returns its input unchanged."""
    if node.target not in DROPOUTS and node.target not in IN_PLACE_DROPOUTS:
        return False
    return argument_value(node, "train") is False or argument_value(node, "p") == 0.0
