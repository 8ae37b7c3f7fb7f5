"""Find the channel dimension of an operator's inputs."""

from __future__ import annotations

import re

from torch.fx import Node

from quantfx.passes.graph.operator_name import operator_name

# The channels come before this many spatial dimensions, with or without a batch.
_SPATIAL = re.compile(r"(?:conv|conv_transpose|\w*pool|upsample_\w+)([123])d|pixel_(?:un)?shuffle")
_SECOND = ("batch_norm", "instance_norm", "group_norm", "prelu")
_LAST = re.compile(r"linear|matmul|bmm|layer_norm|rms_norm|\w*(?:lstm|gru|rnn)\w*")


def channel_axis(anchor: Node) -> int | None:
    """Return the dimension of the channels in the inputs of an operator.

    None for an operator that treats all dimensions alike, such as a sum, or names its own, such as
    cat.

    Args:
        anchor: The operator that a match is about.
    """
    op = operator_name(anchor).split(".")[1].removesuffix("_")
    if spatial := _SPATIAL.fullmatch(op):
        return -1 - int(spatial[1] or 2)
    if op in _SECOND:
        return 1
    return -1 if _LAST.fullmatch(op) else None
