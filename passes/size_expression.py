"""Conditions and sums over sizes, as text that can be computed without trusting it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Eq": operator.eq,
    "Ne": operator.ne,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
    "Max": max,
    "Min": min,
}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class UnknownExpression(Exception):
    """A text that is no expression over sizes."""


def size_value(text: str, sizes: Mapping[str, int]) -> int | bool:
    """Return what ``text``, e.g. ``Eq(Mod(s0, 4), 0)``, is for sizes of those names.

    Raises:
        UnknownExpression: it names another function, or a size that is not given.
    """
    try:
        return cast(int | bool, _value(ast.parse(text, mode="eval").body, sizes))
    except (SyntaxError, KeyError, ZeroDivisionError) as error:
        raise UnknownExpression(text) from error


def size_names(text: str) -> set[str]:
    """Return the names of sizes in ``text``."""
    tree = ast.parse(text, mode="eval")
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in called)
    return {node.id for node in names}


def _value(node: ast.expr, sizes: Mapping[str, int]) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_value(node.operand, sizes))
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        right = _value(node.comparators[0], sizes)
        return _OPERATORS[type(node.ops[0])](_value(node.left, sizes), right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _FUNCTIONS[node.func.id](*[_value(each, sizes) for each in node.args])
    raise KeyError(type(node).__name__)
