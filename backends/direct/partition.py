"""Partition nodes into maximal sets that can run at one point of the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch.fx import Graph, Node

from quantfx.backends.direct.taken import is_int8_product
from quantfx.passes.graph.aliasing import writes_to
from quantfx.passes.quant.qdq import dequantizes, quantizes


def partition(graph: Graph, takes: Callable[[Node], bool]) -> list[list[Node]]:
    """Return disjoint sets of nodes, in graph order, each with an int8 product.

    No path leads out of a set and back in, so that the set can run at one point; no node that
    writes to memory lies between its nodes.

    Args:
        graph: A q/dq graph.
        takes: Whether a node may be in a set.
    """
    sets = _Sets()
    epoch = 0
    for node in graph.nodes:
        if node.op == "call_function" and writes_to(node):
            epoch += 1  # after a write, other nodes may read other values
        if node.op != "get_attr":
            sets.add(node, epoch if takes(node) else None)
    return [
        trimmed
        for members in sets.members()
        if (trimmed := _trimmed(members)) and any(map(is_int8_product, trimmed))
    ]


def unvarying(graph: Graph) -> list[Node]:
    """Return the operators that depend on constants alone, which compilers compute once.

    Dequantizes are not among them; they belong to their readers.
    """
    varying: set[Node] = set()
    found: list[Node] = []
    for node in graph.nodes:
        if node.op == "placeholder" or not varying.isdisjoint(node.all_input_nodes):
            varying.add(node)
        elif node.op == "call_function" and not dequantizes(node):
            found.append(node)
    return found


class _Sets:
    """Sets that grow along the graph; a node outside of all sets is its own set."""

    def __init__(self) -> None:
        self._set_of: dict[Node, int] = {}
        self._members: dict[int, list[Node]] = {}
        self._epoch: dict[int, int | None] = {}
        self._before: dict[int, set[int]] = {}  # the sets that each set reads from

    def add(self, node: Node, epoch: int | None) -> None:
        """Add the next node of the graph; ``epoch`` is None for a node that stays alone."""
        mine = len(self._set_of)
        inputs = {self._set_of[each] for each in node.all_input_nodes if each in self._set_of}
        self._set_of[node], self._members[mine] = mine, [node]
        self._epoch[mine], self._before[mine] = epoch, inputs
        if epoch is None:
            return
        for other in sorted(inputs):
            if self._epoch[other] == epoch and not self._detours(other, mine):
                mine = self._join(other, mine)

    def members(self) -> Iterable[list[Node]]:
        """Yield each set of nodes that may run together, in graph order."""
        for number, nodes in self._members.items():
            if self._epoch[number] is not None:
                yield sorted(nodes)

    def _detours(self, first: int, last: int) -> bool:
        """Whether a path leads from ``first`` through other sets to ``last``."""
        pending = [each for each in self._before[last] if each != first]
        seen: set[int] = set()
        oldest = min(self._members[first])
        while pending:
            number = pending.pop()
            if number == first:
                return True
            # A set wholly before the first set reads nothing from it.
            if number not in seen and not max(self._members[number]) < oldest:
                seen.add(number)
                pending += self._before[number]
        return False

    def _join(self, first: int, last: int) -> int:
        for node in self._members[last]:
            self._set_of[node] = first
        self._members[first] += self._members.pop(last)
        self._before[first] = (self._before[first] | self._before.pop(last)) - {first, last}
        for before in self._before.values():
            if last in before:
                before.remove(last)
                before.add(first)
        return first


def _trimmed(members: list[Node]) -> list[Node]:
    """Return the members without dequantizes for outside readers, and nodes left alone then.

    So integers leave the set, not floats. Quantizes at the front stay: later steps need the layout
    that they choose.
    """
    kept = set(members)
    for node in reversed(members):
        alone = not any(user in kept for user in node.users)
        if alone and dequantizes(node):
            kept.remove(node)
    for node in members:
        lonely = not any(each in kept for each in node.all_input_nodes)
        if lonely and not quantizes(node) and not any(user in kept for user in node.users):
            kept.discard(node)
    return [node for node in members if node in kept]
