"""Conditions on the sizes of a call's inputs, ready to be computed, also where Dynamo traces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from quantfx.passes.inputs.size_expression import Tree, compute, parse, size_names


class SizedPlace(NamedTuple):
    """A dimension, a stride or a number among the inputs that is an expression over free sizes.

    Attributes:
        form: Which input.
        what: ``size``, ``stride`` or ``value``.
        place: Which dimension.
        text: The expression.
        tree: To be computed.
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
        text: As torch writes it.
        tree: To be computed.
        seen: The free size that it is about alone; 0 and 1 were tried by themselves, and torch,
            which takes free sizes for larger ones, states conditions for those. Empty for none.
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
        numbers: The names that are arguments, not sizes: these may be anything for torch.

    Raises:
        UnknownExpression: it cannot be computed.
    """
    tree, names = parse(condition), size_names(condition)
    (alone,) = names if len(names) == 1 else ("",)
    return SizeRule(condition, tree, "" if alone in numbers else alone)
