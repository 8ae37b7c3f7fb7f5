"""Conditions on the sizes of a call's inputs, parsed so that Dynamo can trace their evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from quantfx.passes.inputs.size_expression import Tree, compute, parse, size_names


class SizedPlace(NamedTuple):
    """A dimension, stride or number among the inputs that is an expression over free sizes.

    Attributes:
        form: Index of the input.
        what: ``size``, ``stride`` or ``value``.
        place: Index of the dimension.
        text: The expression.
        tree: The parsed expression.
        names: The free sizes in it.
    """

    form: int
    what: str
    place: int
    text: str
    tree: Tree
    names: tuple[str, ...]


class SizeRule(NamedTuple):
    """One condition.

    Attributes:
        text: The condition as torch writes it.
        tree: The parsed condition.
        seen: The free size, if the condition is about one only. torch assumes that free sizes are
            at least 2, so the condition does not apply to 0 and 1, which were tried separately.
            Empty if there is no such size.
    """

    text: str
    tree: Tree
    seen: str

    def holds(self, sizes: Mapping[str, Any]) -> bool:
        """Whether the condition holds."""
        if self.seen and sizes[self.seen] <= 1:
            return True
        return bool(compute(self.tree, sizes))


def sized_place(form: int, what: str, place: int, text: str) -> SizedPlace:
    """Return a place whose size is the expression ``text``.

    Raises:
        UnknownExpression: it cannot be computed.
    """
    return SizedPlace(form, what, place, text, parse(text), tuple(sorted(size_names(text))))


def size_rule(condition: str, numbers: Collection[str]) -> SizeRule:
    """Return a condition as a rule.

    Args:
        condition: E.g. ``Eq(Mod(s0, 4), 0)``.
        numbers: Names of arguments that are numbers, not sizes: torch assumes nothing about them.

    Raises:
        UnknownExpression: it cannot be computed.
    """
    tree, names = parse(condition), size_names(condition)
    (alone,) = names if len(names) == 1 else ("",)
    return SizeRule(condition, tree, "" if alone in numbers else alone)
