"""Named predicates over the values of a match; structure belongs to the templates.

A predicate returns None when it holds, else the reason as a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from quantfx.patterns.schema import argument_value
from quantfx.patterns.sizes import known_true
from quantfx.patterns.template import Op

_Size = int | torch.SymInt
# Where passes store two integers in a byte: see passes/quant/halves.py.
_UNPACK = "quantfx.unpack_halves.default"


def shape_of(node: Node) -> tuple[_Size, ...] | None:
    """Return the shape of the tensor ``node`` yields; None if unknown or if it yields no tensor."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def same_shape(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The tensors have the same shape, so nothing is broadcast."""
    first, second = shape_of(nodes[0]), shape_of(nodes[1])
    if first is None or second is None:
        unknown = nodes[0] if first is None else nodes[1]
        return f"the shape of {unknown.name} is not known"
    if not _equal(first, second):
        return f"{nodes[0].name} has shape {list(first)}, {nodes[1].name} {list(second)}"
    return None


def _equal(first: tuple[_Size, ...], second: tuple[_Size, ...]) -> bool:
    """Whether two shapes are equal for all inputs, even where sizes depend on data."""
    return len(first) == len(second) and all(
        known_true(one == other) for one, other in zip(first, second, strict=True)
    )


def distinct(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The two tensors are not the same tensor."""
    return f"{nodes[0].name} takes both places" if nodes[0] is nodes[1] else None


def dies_here(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """Every other reader of the first node is an ancestor of the second.

    The third node is the reader inside the match. oneDNN's accumulating kernels overwrite the
    quantized tensor that all readers share; the graph's output reads the float tensor. The walk is
    bounded by the position of the earliest other reader.
    """
    value, compute, reader = nodes
    others = [node for node in value.users if node is not reader and node.op != "output"]
    late = [node for node in others if not node < compute]
    if late:
        return f"{late[0].name} uses {value.name} after {compute.name}"
    if not others:
        return None
    found = _ancestors(compute, not_before=min(others))
    stray = [node for node in others if node not in found]
    return (
        f"{stray[0].name}, which uses {value.name}, may run after {compute.name}" if stray else None
    )


def constant(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The tensor, or each tensor of a list, is a parameter or buffer, packed or not."""
    computed = next((node for node in nodes if _stored(node).op != "get_attr"), None)
    return None if computed is None else f"{computed.name} is computed, not a stored weight"


def _stored(node: Node) -> Node:
    """Return the stored tensor that ``node`` unpacks; ``node`` itself if it does anything else."""
    return node.all_input_nodes[0] if str(node.target) == _UNPACK else node


def matrix(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The tensor has two dimensions."""
    return _dimensions(nodes[0], range(2, 3), "has {} dimensions, not 2")


def has_rows(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The tensor has at least two dimensions: it holds rows and is not a vector."""
    return _dimensions(nodes[0], range(2, 99), "is a vector, and kernels take rows")


def has_positions(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The tensor has at least three dimensions: batch, channels and positions."""
    return _dimensions(nodes[0], range(3, 99), "has {} dimensions, not 3 or more")


def batched(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The convolution's result has a batch dimension, i.e. as many dimensions as the weight."""
    result, weight = (shape_of(node) for node in nodes)
    if result is None or weight is None:
        return f"the shapes of {nodes[0].name} and {nodes[1].name} are not known"
    without = f"{nodes[0].name} has no batch dimension"
    return None if len(result) == len(weight) else without


def foldable(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The batch norm uses running statistics in evaluation; training may differ."""
    training = argument_value(nodes[0], "training")
    if isinstance(training, Node) or training is False:
        return None
    return f"{nodes[0].name} computes with its batch in evaluation, too"


def scalar_operand(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The other operand of the sum or product is a number, written in the model."""
    other = argument_value(nodes[0], "other")
    is_number = isinstance(other, (int, float)) and not isinstance(other, bool)
    return None if is_number else f"{nodes[0].name}.other is {other}, not a number"


def dimensions_2_to_5(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The tensor has two to five dimensions: vectors, lines, images or volumes in a batch."""
    return _dimensions(nodes[0], range(2, 6), "has {} dimensions")


def float32(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The tensors are float32."""
    for node in nodes:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return f"{node.name} is not known to be a tensor"
        if value.dtype != torch.float32:
            return f"{node.name} is {str(value.dtype).removeprefix('torch.')}, not float32"
    return None


def float32_or_float64(nodes: Sequence[Node], _ops: Sequence[Op]) -> str | None:
    """The tensors have a dtype that training supports: float32 or float64."""
    for node in nodes:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.dtype not in (torch.float32, torch.float64):
            return f"{node.name} is neither float32 nor float64"
    return None


def feeds(nodes: Sequence[Node], ops: Sequence[Op]) -> str | None:
    """Some user of the node is one of the operators, or only the graph's output uses the node."""
    targets = {target for op in ops for target in op.targets}
    users = list(nodes[0].users)
    if not users or any(user.target in targets for user in users):
        return None
    return f"no user of {nodes[0].name} takes int8: {', '.join(user.name for user in users)}"


def _dimensions(node: Node, allowed: range, otherwise: str) -> str | None:
    """Return ``otherwise`` with the number of dimensions put in, unless that number is allowed."""
    shape = shape_of(node)
    if shape is None:
        return f"the shape of {node.name} is not known"
    return None if len(shape) in allowed else f"{node.name} {otherwise.format(len(shape))}"


def _ancestors(node: Node, *, not_before: Node) -> set[Node]:
    found: set[Node] = set()
    pending = [node]
    while pending:
        for producer in pending.pop().all_input_nodes:
            if producer not in found and not producer < not_before:
                found.add(producer)
                pending.append(producer)
    return found


@dataclass(frozen=True)
class Predicate:
    """A check function, how many nodes or roles it takes, and whether op names may follow."""

    function: Callable[[Sequence[Node], Sequence[Op]], str | None]
    nodes: int
    takes_ops: bool = False


PREDICATES = {
    "same_shape": Predicate(same_shape, 2),
    "distinct": Predicate(distinct, 2),
    "dies_here": Predicate(dies_here, 3),
    "constant": Predicate(constant, 1),
    "matrix": Predicate(matrix, 1),
    "has_rows": Predicate(has_rows, 1),
    "has_positions": Predicate(has_positions, 1),
    "batched": Predicate(batched, 2),
    "scalar_operand": Predicate(scalar_operand, 1),
    "dimensions_2_to_5": Predicate(dimensions_2_to_5, 1),
    "float32": Predicate(float32, 1),
    "float32_or_float64": Predicate(float32_or_float64, 1),
    "foldable": Predicate(foldable, 1),
    "feeds": Predicate(feeds, 1, takes_ops=True),
}
