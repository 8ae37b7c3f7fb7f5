"""Which nodes write in place, and which tensors share memory, according to operator schemas."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Graph, Node

from quantfx.patterns.schema import (
    argument_value,
    is_operator_call,
    overload,
    resolve_op,
    schema_arguments,
    schema_returns,
)

_CASTS = frozenset(
    resolve_op(f"aten.to.{name}") for name in ("dtype", "dtype_layout", "device", "other")
)
# Views in one layout and copies in another; ``view`` itself is an error there.
MAY_COPY = _CASTS | frozenset(
    resolve_op(f"aten.{name}")
    for name in (
        "view.default",
        "view_as.default",
        "reshape.default",
        "reshape_as.default",
        "flatten.using_ints",
        "ravel.default",
        "contiguous.default",
    )
)


def writes_to(node: Node) -> list[Node]:
    """Return the arguments that ``node`` overwrites."""
    return [value for value, writes, _ in _find_aliased(node) if writes]


def views_of(node: Node) -> list[Node]:
    """Return the arguments whose memory the result of ``node`` may share.

    An in-place operator returns the very tensor it wrote to.
    """
    return [value for value, _, returned in _find_aliased(node) if returned]


def _find_aliased(node: Node) -> list[tuple[Node, bool, bool]]:
    """Return ``(argument, is written to, shares memory with a result)`` where either is true."""
    if not is_operator_call(node):
        return []
    target = overload(node)
    if target in _CASTS and _copies(node):
        return []
    returned = {name for result in schema_returns(target) for name in result}
    found: list[tuple[Node, bool, bool]] = []
    for position, argument in enumerate(schema_arguments(target)):
        alias = argument.alias_info
        if alias is None:
            continue
        value = node.kwargs.get(argument.name)
        if position < len(node.args):
            value = node.args[position]
        shares = not alias.is_write or bool(returned & set(alias.before_set))
        values = value if isinstance(value, (list, tuple)) else (value,)
        found += [(item, alias.is_write, shares) for item in values if isinstance(item, Node)]
    return found


def _copies(node: Node) -> bool:
    """Whether a cast has memory of its own; by its schema it is a view."""
    if argument_value(node, "copy"):
        return True
    made, given = (each.meta.get("val") for each in (node, node.all_input_nodes[0]))
    if not isinstance(made, Tensor) or not isinstance(given, Tensor):
        return False
    return (made.dtype, made.device) != (given.dtype, given.device)


def overwritten(graph: Graph) -> dict[Node, Node]:
    """Return every tensor that a later node writes to, directly or through a view, and the node."""
    found: dict[Node, Node] = {}
    for writer in graph.nodes:
        for target in writes_to(writer):
            for node in sharing_memory(target):
                if node < writer:
                    found[node] = writer
    return found


def written_between(node: Node, first: Node, last: Node) -> Node | None:
    """Return a node between two others that writes to the tensor of ``node``."""
    for each in sharing_memory(node):
        for user in each.users:
            if first < user < last and each in writes_to(user):
                return user
    return None


def who_sees(writer: Node) -> Node | None:
    """Return what sees a write beside the readers of the writer's own result.

    It is a tensor with an owner outside of the graph, or a node that reads the memory afterwards.
    """
    for target in writes_to(writer):
        for node in sharing_memory(target):
            if node < writer and node.op != "call_function":
                return node
            if node < writer and (later := [user for user in node.users if writer < user]):
                return later[0]
    return None


def sharing_memory(node: Node) -> set[Node]:
    """Return every node whose result may share memory with that of ``node``, itself included."""
    found: set[Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current not in found:
            found.add(current)
            pending += views_of(current)
            pending += [user for user in current.users if current in views_of(user)]
    return found
