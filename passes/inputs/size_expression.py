"""Conditions and expressions over sizes: text that is evaluated safely even if untrusted."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

# A number, the name of a size, or the name of a function and its operands.
Tree = int | float | str | tuple[Any, ...]

# By the names that torch writes, and by the names of Python's operators.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Eq": operator.eq,
    "Ne": operator.ne,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "FloatPow": operator.pow,
    "PowByNatural": operator.pow,
    "ToFloat": float,
    "RoundToInt": round,
    "CeilToInt": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
    "Max": max,
    "Min": min,
    "Add": operator.add,
    "Sub": operator.sub,
    "Mult": operator.mul,
    "Div": operator.truediv,
    "Pow": operator.pow,
    "USub": operator.neg,
    "BitAnd": operator.and_,
    "BitOr": operator.or_,
    "Invert": operator.not_,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
}
_NO_VALUE = (KeyError, TypeError, ValueError, ArithmeticError)


class UnknownExpression(Exception):
    """A text is not an expression over sizes."""


def size_value(text: str, sizes: Mapping[str, int]) -> int | bool:
    """Return the value of ``text``, e.g. ``Eq(Mod(s0, 4), 0)``, for the given sizes.

    Raises:
        UnknownExpression: it names an unknown function, or a size that is not given.
    """
    try:
        return cast(int | bool, compute(parse(text), sizes))
    except _NO_VALUE as error:
        raise UnknownExpression(text) from error


@lru_cache(maxsize=1024)
def size_names(text: str) -> frozenset[str]:
    """Return the names of sizes in ``text``."""
    tree = ast.parse(text, mode="eval")
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in called)
    return frozenset(node.id for node in names)


@lru_cache(maxsize=1024)
def parse(text: str) -> Tree:
    """Return ``text`` as plain data, for ``compute``.

    Raises:
        UnknownExpression: it holds more than numbers, names and functions over sizes.
    """
    try:
        return _tree(ast.parse(text, mode="eval").body)
    except (SyntaxError, KeyError, RecursionError) as error:
        raise UnknownExpression(text) from error


def compute(tree: Tree, sizes: Mapping[str, Any]) -> Any:
    """Return the value of a tree for the given sizes; Dynamo can trace this and guards on it."""
    if isinstance(tree, str):
        return sizes[tree]
    if not isinstance(tree, tuple):
        return tree
    operands = [compute(each, sizes) for each in tree[1:]]
    return _FUNCTIONS[tree[0]](*operands)


def _tree(node: ast.expr) -> Tree:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return cast(int | float, node.value)
    if isinstance(node, ast.Name):
        return node.id
    function, operands = _call(node)
    if function not in _FUNCTIONS:
        raise KeyError(function)
    return (function, *map(_tree, operands))


def _call(node: ast.expr) -> tuple[str, list[ast.expr]]:
    """Return the name of a function and its operands."""
    if isinstance(node, ast.UnaryOp):
        return type(node.op).__name__, [node.operand]
    if isinstance(node, ast.BinOp):
        return type(node.op).__name__, [node.left, node.right]
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return type(node.ops[0]).__name__, [node.left, node.comparators[0]]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return node.func.id, node.args
    raise KeyError(type(node).__name__)
