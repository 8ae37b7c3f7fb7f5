"""Operators and their arguments by schema name, however a graph spells the call.

Importing this module registers ``torch.ops.quantized_decomposed.*``, the quantize and dequantize
operators that Inductor and the ecosystem read. torch registers them when it imports the module
below, which has no public name (torch 2.13). Only this file imports that module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # pyright: ignore[reportUnusedImport]
from torch._ops import OpOverload
from torch.fx import Node

from quantfx.patterns.errors import PatternError, unknown_name


class _Missing:
    """Marks a required argument that a call does not pass."""

    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()


@dataclass(frozen=True)
class Argument:
    """One argument of an operator: its name, position and default (``MISSING`` if required)."""

    name: str
    position: int
    default: Any


def schema_arguments(target: OpOverload[..., Any]) -> list[torch.Argument]:
    """Return the schema's arguments; ``_schema`` has no public name in torch 2.13."""
    return list(target._schema.arguments)  # pyright: ignore[reportPrivateUsage]


def schema_returns(target: OpOverload[..., Any]) -> list[frozenset[str]]:
    """Return the alias set of each result; empty for a fresh tensor."""
    returns = target._schema.returns  # pyright: ignore[reportPrivateUsage]
    return [frozenset(r.alias_info.before_set if r.alias_info else ()) for r in returns]


def schema_text(target: OpOverload[..., Any]) -> str:
    """Return the schema as torch writes it: ``namespace::op.overload(Tensor x, ...) -> Tensor``."""
    return str(target._schema)  # pyright: ignore[reportPrivateUsage]


def resolve_op(name: str) -> OpOverload[..., Any]:
    """Return the overload called ``namespace.op.overload``, e.g. ``aten.add.Tensor``.

    Raises:
        PatternError: the running torch has no such operator; names the nearest one it has.
    """
    parts = name.split(".")
    if len(parts) != 3:
        raise PatternError(
            f"'{name}' is not of the form namespace.operator.overload", rule="name-form", site=name
        )
    namespace, op, overload = parts
    packet = getattr(getattr(torch.ops, namespace), op, None)
    if packet is None:
        known = [f"{namespace}.{each}.{overload}" for each in dir(getattr(torch.ops, namespace))]
        raise unknown_name(PatternError, "operator", name, known, of=f"torch {torch.__version__}")
    found = getattr(packet, overload, None)
    if not isinstance(found, OpOverload):
        known = [f"{namespace}.{op}.{each}" for each in packet.overloads()]
        raise unknown_name(PatternError, "overload", name, known, of=f"torch {torch.__version__}")
    return found


@lru_cache(maxsize=4096)
def arguments(target: OpOverload[..., Any]) -> dict[str, Argument]:
    """Return the arguments of ``target`` by name, in schema order."""
    return {
        a.name: Argument(a.name, i, a.default_value if a.has_default_value() else MISSING)
        for i, a in enumerate(schema_arguments(target))
    }


def overload(node: Node) -> OpOverload[..., Any]:
    """Return the operator overload that ``node`` calls.

    Raises:
        TypeError: it does not call an operator overload.
    """
    if not isinstance(node.target, OpOverload):
        raise TypeError(f"{node.name} calls {node.target}, not an operator overload")
    return node.target


def argument_value(node: Node, name: str) -> Any:
    """Return what ``node`` passes for the schema argument ``name``.

    Positional, keyword and default spellings give the same value.

    Raises:
        KeyError: the operator of ``node`` has no such argument.
    """
    argument = arguments(overload(node))[name]
    if name in node.kwargs:
        return node.kwargs[name]
    if argument.position < len(node.args):
        return node.args[argument.position]
    return argument.default


def set_argument(node: Node, name: str, value: Any) -> None:
    """Replace what ``node`` passes for the schema argument ``name``, keeping its spelling.

    Raises:
        KeyError: the operator of ``node`` has no such argument.
    """
    argument = arguments(overload(node))[name]
    if argument.position < len(node.args):
        node.update_arg(argument.position, value)
    else:
        node.update_kwarg(name, value)


def is_operator_call(node: Node) -> bool:
    """Whether ``node`` calls an operator overload, so that it has a schema."""
    return node.op == "call_function" and isinstance(node.target, OpOverload)
