"""A sum of products of two tensors, with one letter per dimension."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from torch.fx import Node

_ELLIPSIS = "..."
_LABELS = re.compile(r"[a-zA-Z]*(\.{3})?[a-zA-Z]*")


@dataclass(frozen=True)
class Contraction:
    """``einsum(f"{of_x},{of_y}->{of_result}", x, y)``."""

    x: Node
    y: Node
    of_x: str
    of_y: str
    of_result: str

    def swap_operands(self) -> Contraction:
        """Return the same contraction with the operands swapped."""
        return Contraction(self.y, self.x, self.of_y, self.of_x, self.of_result)

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear: sums over x's last labels, y's other labels end the result."""
        labels = (self.of_x, self.of_y, self.of_result)
        if any(len(set(each)) != len(each) for each in labels) or not self.summed:
            return False
        if {*self.of_y} != {*self.new, *self.summed} or not (self.kept or self.new):
            return False  # sums over labels of y only, or has two vectors
        if not self.same_sizes(self.summed):
            return False
        return self.of_x == self.kept + self.summed and self.of_result == self.kept + self.new

    @property
    def kept(self) -> str:
        """Labels of x that y does not have."""
        return "".join(each for each in self.of_x if each not in self.of_y)

    @property
    def summed(self) -> str:
        """Labels of both, none of which is in the result."""
        both = "".join(each for each in self.of_x if each in self.of_y)
        return "" if set(both) & set(self.of_result) else both

    @property
    def new(self) -> str:
        """Labels of y that x does not have, in the order of the result."""
        return "".join(each for each in self.of_result if each not in self.of_x)

    def same_sizes(self, labels: str) -> bool:
        """Whether x and y have the same sizes for ``labels``: einsum broadcasts a size of 1."""
        x, y = self.x.meta["val"].shape, self.y.meta["val"].shape
        return all(str(x[self.of_x.index(e)]) == str(y[self.of_y.index(e)]) for e in labels)


def einsum_contraction(node: Node) -> Contraction | None:
    """Return the contraction of the einsum ``node``; None unless it has two operands.

    Dimensions of an ellipsis get their own letters, aligned at the last dimension of both operands,
    and an omitted result is written out: ``"...k,ko" -> "bak", "ko", "bao"``.
    """
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    given, arrow, result = equation.partition("->")
    of_x, comma, of_y = given.partition(",")
    if not comma or not all(map(_LABELS.fullmatch, (of_x, of_y, result))):
        return None
    if not isinstance(operands, (list, tuple)) or len(operands) != 2:
        return None
    x, y = operands
    if not isinstance(x, Node) or not isinstance(y, Node):
        return None
    if not arrow:
        once = sorted(each for each in string.ascii_letters if given.count(each) == 1)
        result = _ELLIPSIS * (_ELLIPSIS in given) + "".join(once)
    free = [each for each in string.ascii_letters if each not in equation]
    hidden = max(_count_hidden(x, of_x), _count_hidden(y, of_y))
    if hidden > len(free) or (hidden and _ELLIPSIS not in result):
        return None  # an ellipsis that is summed over
    return Contraction(
        x,
        y,
        _spell_out(of_x, free[: _count_hidden(x, of_x)]),
        _spell_out(of_y, free[: _count_hidden(y, of_y)]),
        _spell_out(result, free[:hidden]),
    )


def _count_hidden(operand: Node, labels: str) -> int:
    """Return how many dimensions of an operand its ellipsis stands for."""
    if _ELLIPSIS not in labels:
        return 0
    return int(operand.meta["val"].dim()) - len(labels.replace(_ELLIPSIS, ""))


def _spell_out(labels: str, hidden: list[str]) -> str:
    return labels.replace(_ELLIPSIS, "".join(reversed(hidden)))
