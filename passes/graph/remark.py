"""What a reader of the report wants to know about one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["applied", "missed", "noted"]


@dataclass(frozen=True)
class Remark:
    """Something a reader of the report wants to know about one node.

    Attributes:
        kind: ``applied``; ``missed`` for something that was tried and did not hold; or ``noted``,
            which is about values, and ``node`` names a tensor.
        graph: Path of the node's graph, "" for the top one.
        node: Node name.
        message: The rule and its reason.
        op: Operator of the node, by which reports group.
    """

    kind: Kind
    graph: str
    node: str
    message: str
    op: str = ""
