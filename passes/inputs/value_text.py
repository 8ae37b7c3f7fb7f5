"""Convert arguments and targets of nodes to and from plain data.

A value without a JSON form becomes an object with one key that names its kind:
``{"node": "conv2d"}``, ``{"tuple": [1, 2]}``, ``{"dtype": "float32"}``. Reading looks up every name
among objects of its kind, so a file cannot refer to anything else in Python.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import Node

from quantfx.passes.errors import FileError
from quantfx.patterns.errors import PatternError
from quantfx.patterns.schema import arguments, resolve_op

_OPERATORS = (
    "getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos",
    "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_", "abs", "lshift", "rshift",
)  # fmt: skip
# Functions that the exporter leaves in graphs to compute sizes and to unpack results.
_FUNCTIONS: dict[str, Callable[..., Any]] = (
    {f"operator.{name}": getattr(operator, name) for name in _OPERATORS}
    | {f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")}
    | {
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sum")
    }
)
_FUNCTION_NAMES = {function: name for name, function in _FUNCTIONS.items()}
_HIGHER_ORDER = "higher_order."
# Objects of torch that are known by their name in torch.
_NAMED: dict[str, type[Any]] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def encode(value: object) -> Any:
    """Return an argument as plain data.

    Raises:
        FileError: files do not hold values of its kind.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        items = [encode(item) for item in cast(list[object], value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        pairs = cast(dict[object, object], value).items()
        return {"dict": [[encode(key), encode(item)] for key, item in pairs]}
    return _encode_object(value)


def _encode_object(value: object) -> dict[str, Any]:
    for kind, named in _NAMED.items():
        if isinstance(value, named):
            return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, slice):
        parts: tuple[object, ...] = (value.start, value.stop, value.step)
        return {"slice": [encode(part) for part in parts]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if type(value) is complex:
        return {"complex": [encode(value.real), encode(value.imag)]}
    if value is Ellipsis:
        return {"ellipsis": []}
    message = f"a {type(value).__name__} among the arguments of a node has no form in files"
    raise FileError(message, rule="no-text-form")


def decode(data: object, nodes: Mapping[str, Node]) -> Any:
    """Return the argument that ``data`` describes.

    Args:
        data: From ``encode``.
        nodes: The nodes made so far, by name.

    Raises:
        FileError: it describes no argument.
        KeyError: there is no such node.
    """
    if isinstance(data, list):
        return [decode(item, nodes) for item in cast(list[object], data)]
    if not isinstance(data, dict):
        return data
    (kind, inner), *more = cast(dict[str, Any], data).items()
    if more:
        raise FileError("an argument with two kinds", rule="damaged-file")
    if kind == "node":
        return nodes[inner]
    if kind == "tuple":
        return tuple(decode(item, nodes) for item in inner)
    if kind == "dict":
        return {decode(key, nodes): decode(item, nodes) for key, item in inner}
    if kind == "slice":
        return slice(*(decode(part, nodes) for part in inner))
    return _decode_object(kind, inner, nodes)


def _decode_object(kind: str, inner: Any, nodes: Mapping[str, Node]) -> Any:
    if kind in _NAMED:
        found = getattr(torch, inner, None)
        if not isinstance(found, _NAMED[kind]):
            message = f"torch {torch.__version__} has no {kind} '{inner}'"
            raise FileError(message, rule="unknown-name", site=inner)
        return found
    if kind == "device":
        return torch.device(inner)
    if kind == "float":
        return float(inner)
    if kind == "complex":
        return complex(*(decode(part, nodes) for part in inner))
    if kind == "ellipsis":
        return Ellipsis
    raise FileError(f"an argument of unknown kind '{kind}'", rule="damaged-file", site=kind)


def encode_target(node: Node) -> str:
    """Return what a ``call_function`` node calls, by name.

    Raises:
        FileError: it is neither an operator nor arithmetic of sizes.
    """
    target = node.target
    if isinstance(target, OpOverload):
        return str(target)
    if isinstance(target, HigherOrderOperator):
        return f"{_HIGHER_ORDER}{target.__name__}"
    if callable(target) and target in _FUNCTION_NAMES:
        return _FUNCTION_NAMES[target]
    raise FileError(
        f"node '{node.name}' calls {target}, which is not an operator and has no form in files",
        rule="no-text-form",
        site=node.name,
    )


def decode_target(name: str) -> Callable[..., Any]:
    """Return the function called ``name``.

    Raises:
        FileError: this process has no such operator, or the operator opens files.
    """
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if name.startswith(_HIGHER_ORDER):
        found = getattr(torch.ops.higher_order, name.removeprefix(_HIGHER_ORDER), None)
        if isinstance(found, HigherOrderOperator):
            return found
        raise FileError(
            f"torch {torch.__version__} has no operator '{name}'", rule="unknown-name", site=name
        )
    try:
        found = resolve_op(name)
    except PatternError as error:
        fix = "if another library defines it, import that library before loading"
        raise FileError(f"{error.message}", rule="unknown-name", site=name, fix=fix) from None
    if "filename" in arguments(found):  # aten.from_file maps a file, or creates it
        fix = "do not trust the source of this file"
        message = f"'{name}' reads and writes files, which no graph of a network does"
        raise FileError(message, rule="hostile-file", site=name, fix=fix)
    return found
