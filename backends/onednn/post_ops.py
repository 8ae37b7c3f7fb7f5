"""Activations as oneDNN post-ops: the name of each, and the int8 kernels that fuse it.

Measured on torch 2.13: a kernel refuses activations that are not listed here when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.fx import Node

from quantfx.patterns.schema import argument_value, resolve_op


class PostOp(NamedTuple):
    """An operation of a kernel on its result.

    Attributes:
        name: oneDNN's name as torch spells it; ``none`` for no operation.
        scalars: Its parameters.
        algorithm: Which of several formulas, for ``gelu``.
    """

    name: str
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


NONE = PostOp("none")

_CONV2D = frozenset({"none", "relu", "hardtanh", "hardswish", "swish"})
# Maps a kind of operator to the activations that its kernel fuses.
FUSED_BY = {
    "conv1d": _CONV2D,  # computed as conv2d
    "conv2d": _CONV2D,
    "conv3d": frozenset({"none"}),
    "linear": _CONV2D | {"leaky_relu", "tanh", "gelu"},
}


def _named(name: str) -> Callable[[Node], PostOp]:
    return lambda node: PostOp(name)


def _clamp(node: Node) -> PostOp:
    low, high = argument_value(node, "min_val"), argument_value(node, "max_val")
    return PostOp("hardtanh", (float(low), float(high)))


def _leaky_relu(node: Node) -> PostOp:
    return PostOp("leaky_relu", (float(argument_value(node, "negative_slope")),))


def _gelu(node: Node) -> PostOp:
    return PostOp("gelu", algorithm=argument_value(node, "approximate"))


_SPELLINGS: dict[str, Callable[[Node], PostOp]] = {
    "relu": _named("relu"),
    "relu6": lambda node: PostOp("hardtanh", (0.0, 6.0)),
    "hardtanh": _clamp,
    "hardswish": _named("hardswish"),
    "silu": _named("swish"),
    "leaky_relu": _leaky_relu,
    "tanh": _named("tanh"),
    "gelu": _gelu,
}
_POST_OPS: dict[Any, Callable[[Node], PostOp]] = {
    resolve_op(f"aten.{name}.default"): make for name, make in _SPELLINGS.items()
} | {
    resolve_op(f"aten.{name}_.default"): make for name, make in _SPELLINGS.items() if name != "gelu"
}


def post_op(activation: Node | None = None) -> PostOp | None:
    """Return the post-op of ``activation``; None if oneDNN's operators have none."""
    if activation is None:
        return NONE
    make = _POST_OPS.get(activation.target)
    return make(activation) if make else None
