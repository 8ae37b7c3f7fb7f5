"""Choose the modules of the user's network that are drawn as a box around their operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from torch.fx import Node

from quantfx.passes.graph.scopes import module_scope, module_stack, op_name
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.quant.qdq import has_qparams


class Boxes:
    """The modules of one graph that are drawn as a box.

    1. A module that calls other modules. A list of modules that is never called gets no box.
    2. A module with several different operations of its own.

    A module with one operation is named in that operation's node instead: a box around a ReLU that
    is called twice would pull the drawing together in the wrong place.

    Args:
        order: The nodes in canonical order.
        prefix: Prefix of every path: the path of a nested graph.
    """

    def __init__(self, order: Sequence[Node], prefix: str = "") -> None:
        self._prefix = prefix
        self._scopes: dict[Node, str] = {}
        for node in order:
            self._scopes[node] = self._own_scope(node)
        self._classes = self._containers(order)

    @property
    def classes(self) -> dict[str, str]:
        """Path of every box -> class of the module."""
        return {self._prefix + path: kind for path, kind in self._classes.items()}

    def scope(self, node: Node) -> str:
        """Return the path of the module that ``node`` is drawn in; "" at the top."""
        scope = self._scopes[node]
        return self._prefix + scope if scope else ""

    def around(self, node: Node) -> tuple[str, ...]:
        """Return the boxes around ``node``, outermost first."""
        parts = self._scopes[node].split(".")
        paths = (".".join(parts[: count + 1]) for count in range(len(parts)))
        return tuple(self._prefix + path for path in paths if path in self._classes)

    def _own_scope(self, node: Node) -> str:
        if node.op in ("placeholder", "get_attr", "output"):
            return ""
        producer = node.args[0] if node.args else None
        if isinstance(producer, Node) and producer in self._scopes and _follows_producer(node):
            return self._scopes[producer]
        return module_scope(node)

    def _containers(self, order: Iterable[Node]) -> dict[str, str]:
        classes: dict[str, str] = {}
        operations: defaultdict[str, set[str]] = defaultdict(set)
        callers: set[str] = set()
        for node in order:
            scope = self._scopes[node]
            for path, kind in module_stack(node):
                classes.setdefault(path, kind)
                if scope.startswith(f"{path}."):
                    callers.add(path)
            if node.users and not _follows_producer(node):
                operations[scope].add(op_name(node))
        boxes = {path for path in classes if path in callers or len(operations[path]) > 1}
        return {path: kind for path, kind in classes.items() if path and path in boxes}


def _follows_producer(node: Node) -> bool:
    """Whether ``node`` stands for the tensor it reads, and so is drawn next to its producer."""
    return has_qparams(node) or is_observer(node) or op_name(node) == "getitem"
