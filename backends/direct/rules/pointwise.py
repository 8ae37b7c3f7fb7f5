"""Operators on one tensor, element by element, as post-ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Node

from quantfx.backends.direct.runtime.steps import PostOp
from quantfx.patterns.schema import argument_value, resolve_op

LARGEST = 3.4e38  # float32's largest, for a bound that is not given
_ALIKE = 17.0  # log(1 + exp(x)) = x in float32 from here on
Spelling = Callable[[Node], tuple[PostOp, ...] | None]


def _named(name: str) -> Spelling:
    return lambda node: (PostOp(name),)


def _nothing(node: Node) -> tuple[PostOp, ...]:
    return ()


def _hardtanh(node: Node) -> tuple[PostOp, ...]:
    low, high = argument_value(node, "min_val"), argument_value(node, "max_val")
    return (_clip(float(low), float(high)),)


def _clamp(node: Node) -> tuple[PostOp, ...] | None:
    low, high = argument_value(node, "min"), argument_value(node, "max")
    if isinstance(low, Node) or isinstance(high, Node):
        return None
    low = -LARGEST if low is None else float(low)
    return (_clip(low, LARGEST if high is None else float(high)),)


def _clip(low: float, high: float) -> PostOp:
    """Return the clamp; if the bounds are swapped, torch yields the upper bound."""
    return PostOp("clip", min(low, high), high)


def _leaky_relu(node: Node) -> tuple[PostOp, ...]:
    return (PostOp("leaky_relu", float(argument_value(node, "negative_slope"))),)


def _elu(node: Node) -> tuple[PostOp, ...] | None:
    if (argument_value(node, "scale"), argument_value(node, "input_scale")) != (1, 1):
        return None
    return (PostOp("elu", float(argument_value(node, "alpha"))),)


def _gelu(node: Node) -> tuple[PostOp, ...]:
    exact = argument_value(node, "approximate") == "none"
    return (PostOp("gelu_erf" if exact else "gelu_tanh"),)


def _number(node: Node, name: str = "other") -> float | None:
    value = argument_value(node, name)
    return float(value) if isinstance(value, int | float) else None


def _scaled(sign: float) -> Spelling:
    """``x + alpha * number`` or ``x - alpha * number``."""

    def spelling(node: Node) -> tuple[PostOp, ...] | None:
        number, alpha = _number(node), argument_value(node, "alpha")
        if number is None or isinstance(alpha, Node):
            return None
        return (PostOp("linear", 1.0, sign * float(alpha) * number),)

    return spelling


def _mul(node: Node) -> tuple[PostOp, ...] | None:
    number = _number(node)
    return None if number is None else (PostOp("linear", number, 0.0),)


def _div(node: Node) -> tuple[PostOp, ...] | None:
    number = _number(node)
    return (PostOp("linear", 1.0 / number, 0.0),) if number else None


def _softplus(node: Node) -> tuple[PostOp, ...] | None:
    beta, threshold = (float(argument_value(node, name)) for name in ("beta", "threshold"))
    # Beyond the threshold torch returns x itself; from 17 on that is what float32 has anyway.
    return (PostOp("softplus", beta),) if beta and threshold >= _ALIKE else None


def _pow(node: Node) -> tuple[PostOp, ...] | None:
    exponent = _number(node, "exponent")
    if exponent is None:
        return None
    name = {2.0: "square", 0.5: "sqrt"}.get(exponent)
    return (PostOp(name),) if name else (_power(exponent),)


def _power(exponent: float) -> PostOp:
    return PostOp("pow", 1.0, exponent)


def _dropout(node: Node) -> tuple[PostOp, ...] | None:
    return None if argument_value(node, "train") else ()


_BY_NAME: Mapping[str, Spelling] = {
    "relu.default": _named("relu"),
    "relu6.default": lambda node: (PostOp("clip", 0.0, 6.0),),
    "hardtanh.default": _hardtanh,
    "clamp.default": _clamp,
    "clamp_min.default": lambda node: _clamp_min(node),
    "hardswish.default": _named("hardswish"),
    "hardsigmoid.default": _named("hardsigmoid"),
    "silu.default": _named("swish"),
    "sigmoid.default": _named("sigmoid"),
    "tanh.default": _named("tanh"),
    "leaky_relu.default": _leaky_relu,
    "elu.default": _elu,
    "gelu.default": _gelu,
    "exp.default": _named("exp"),
    "abs.default": _named("abs"),
    "sqrt.default": _named("sqrt"),
    "square.default": _named("square"),
    "rsqrt.default": lambda node: (_power(-0.5),),
    "reciprocal.default": lambda node: (_power(-1.0),),
    "softplus.default": _softplus,
    "mish.default": _named("mish"),
    "pow.Tensor_Scalar": _pow,
    "neg.default": lambda node: (PostOp("linear", -1.0, 0.0),),
    "add.Tensor": _scaled(1.0),
    "sub.Tensor": _scaled(-1.0),
    "add.Scalar": _scaled(1.0),
    "sub.Scalar": _scaled(-1.0),
    "mul.Tensor": _mul,
    "mul.Scalar": _mul,
    "div.Tensor": _div,
    "div.Scalar": _div,
    "dropout.default": _dropout,
    "contiguous.default": _nothing,
    "clone.default": _nothing,
    "alias.default": _nothing,
    "detach.default": _nothing,
}


def _clamp_min(node: Node) -> tuple[PostOp, ...] | None:
    low = _number(node, "min")
    return None if low is None else (_clip(low, LARGEST),)


_SPELLINGS: dict[Any, Spelling] = {
    resolve_op(f"aten.{name}"): spelling for name, spelling in _BY_NAME.items()
}


def post_ops_of(node: Node) -> tuple[PostOp, ...] | None:
    """Return the post-ops that compute ``node`` from its one tensor; None if there are none."""
    spelling = _SPELLINGS.get(node.target)
    operands = node.all_input_nodes
    if spelling is None or len(operands) != 1 or node.args[:1] != (operands[0],):
        return None
    return spelling(node)
