"""Read and write one argument slot of a node: ``input``, or ``tensors.1`` inside a list."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from quantfx.patterns.schema import argument_value, set_argument


def read_slot(node: Node, slot: str) -> Node:
    """Return the node that feeds ``slot`` of ``node``.

    Raises:
        TypeError: the slot does not hold a node.
    """
    name, _, index = slot.partition(".")
    value = argument_value(node, name)
    producer = value[int(index)] if index else value
    if not isinstance(producer, Node):
        raise TypeError(f"{node.name}.{slot} is {producer!r}, not the result of a node")
    return producer


def write_slot(node: Node, slot: str, producer: Node) -> None:
    """Make ``producer`` feed ``slot`` of ``node``."""
    name, _, index = slot.partition(".")
    value: Any = producer
    if index:
        items = list(argument_value(node, name))
        items[int(index)] = producer
        value = items
    set_argument(node, name, value)
