"""Read and write one argument slot of a node: ``input``, or ``tensors.1`` inside a list.

A node that calls something without a schema (a control-flow operator, a Python function) numbers
its positional arguments as slots: ``0``, ``1.2``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.fx import Node

from quantfx.patterns.schema import (
    argument_value,
    is_operator_call,
    overload,
    schema_arguments,
    set_argument,
)


def read_slot(node: Node, slot: str) -> Node:
    """Return the node that feeds ``slot`` of ``node``.

    Raises:
        TypeError: the slot does not hold a node.
    """
    name, *indices = slot.split(".")
    value: Any = _argument(node, name)
    for index in indices:
        value = value[int(index)]
    if not isinstance(value, Node):
        raise TypeError(f"{node.name}.{slot} is {value!r}, not the result of a node")
    return value


def write_slot(node: Node, slot: str, producer: Node) -> None:
    """Make ``producer`` feed ``slot`` of ``node``."""
    name, *indices = slot.split(".")
    value = _replace(_argument(node, name), [int(index) for index in indices], producer)
    if name.isdigit():
        node.update_arg(int(name), value)
    else:
        set_argument(node, name, value)


def slots_of(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield every slot among the positional arguments of ``node``, with the node that feeds it."""
    names = [a.name for a in schema_arguments(overload(node))] if is_operator_call(node) else []
    for position, value in enumerate(node.args):
        yield from _nodes(names[position] if names else str(position), value)


def _argument(node: Node, name: str) -> Any:
    return node.args[int(name)] if name.isdigit() else argument_value(node, name)


def _replace(value: Any, indices: list[int], producer: Node) -> Any:
    if not indices:
        return producer
    items = list(value)
    items[indices[0]] = _replace(items[indices[0]], indices[1:], producer)
    return items


def _nodes(slot: str, value: Any) -> Iterator[tuple[str, Node]]:
    if isinstance(value, Node):
        yield slot, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _nodes(f"{slot}.{index}", item)
