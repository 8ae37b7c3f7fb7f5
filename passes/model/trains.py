"""Which operators compute as in training, according to their arguments."""

from __future__ import annotations

from torch.fx import Node

from quantfx.patterns.schema import argument_value, is_operator_call

_FLAGS = {
    "aten.batch_norm.default": "training",
    "aten.dropout.default": "train",
    "aten.feature_dropout.default": "train",
    "aten.alpha_dropout.default": "train",
    "aten.feature_alpha_dropout.default": "train",
}


def trains(node: Node) -> str:
    """Return what computes as in training, e.g. "a batch norm"; "" if ``node`` does not.

    A batch norm without running statistics uses its input's statistics in either mode. So a norm
    that standardizes weights, or has ``track_running_stats=False``, does not count as training.
    """
    flag = _FLAGS.get(str(node.target))
    if not flag or not is_operator_call(node) or argument_value(node, flag) is not True:
        return ""
    if flag == "training":
        return "a batch norm" if argument_value(node, "running_mean") is not None else ""
    return "a dropout"
