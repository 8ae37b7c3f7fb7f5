"""The counter of batches that a batch norm keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

COUNTS = torch.ops.aten.add_.Tensor


def counter_of(node: Node) -> Node | None:
    """Return the ``num_batches_tracked`` that ``node`` adds to; None for any other node.

    A batch norm that is called twice adds to the result of its first addition.
    """
    counter: Any = node
    while isinstance(counter, Node) and counter.target is COUNTS:
        counter = counter.args[0]
    if counter is node or not isinstance(counter, Node) or counter.op != "get_attr":
        return None
    is_counter = str(counter.target).rpartition(".")[2] == "num_batches_tracked"
    return counter if is_counter else None
