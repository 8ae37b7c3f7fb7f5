"""Which nodes write in place, and which tensors share memory, according to operator schemas."""

from __future__ import annotations

from torch._ops import OpOverload
from torch.fx import Graph, Node

from quantfx.patterns.schema import is_aten_call, schema_arguments


def writes_to(node: Node) -> list[Node]:
    """Return the arguments that ``node`` overwrites."""
    if not is_aten_call(node):
        return []
    return _arguments(node, write=True)


def views_of(node: Node) -> list[Node]:
    """Return the arguments whose memory the result of ``node`` may share."""
    if not is_aten_call(node):
        return []
    return _arguments(node, write=False)


def _arguments(node: Node, *, write: bool) -> list[Node]:
    target = node.target
    if not isinstance(target, OpOverload):
        return []
    found: list[Node] = []
    for position, argument in enumerate(schema_arguments(target)):
        alias = argument.alias_info
        if alias is None or alias.is_write is not write:
            continue
        value = node.kwargs.get(argument.name)
        if position < len(node.args):
            value = node.args[position]
        values = value if isinstance(value, (list, tuple)) else (value,)
        found += [item for item in values if isinstance(item, Node)]
    return found


def overwritten(graph: Graph) -> dict[Node, Node]:
    """Return every tensor some node writes to, directly or through a view, with that node."""
    writers = [(node, target) for node in graph.nodes for target in writes_to(node)]
    found: dict[Node, Node] = {}
    for writer, target in writers:
        pending = [target]
        while pending:
            node = pending.pop()
            if node in found:
                continue
            found[node] = writer
            pending += views_of(node)
            pending += [user for user in node.users if node in views_of(user)]
    return found
