"""Run a graph node by node, and keep each value only until its last reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.graph.graphs import referent
from quantfx.passes.observers.observer import is_observer


class Stepper(fx.Interpreter):
    """Runs ``module`` as far as requested.

    Observers record nothing and return the result of ``observed``, by default their input.

    Args:
        module: A captured, prepared or q/dq graph.
    """

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._module = module
        self._nodes: Sequence[Node] = tuple(module.graph.nodes)
        self._next = 0
        self._values: dict[Node, Any] = {}
        self._readers: dict[Node, int] = {}
        self._kept: dict[Node, int] = {}

    def start(self, leaves: Iterable[Any], kept: Mapping[Node, int]) -> None:
        """Begin a call.

        Args:
            leaves: A value for each placeholder.
            kept: How often ``release`` will be called for a node, in addition to its readers.
        """
        self.args_iter = iter(leaves)
        self._next = 0
        self._values = {}
        self._readers = {node: len(node.users) for node in self._nodes}
        self._kept = dict(kept)

    def value(self, node: Node) -> Any:
        """Return the value of ``node``, after running all earlier nodes that have not run."""
        while node not in self._values:
            self._step()
        return self._values[node]

    def observed(self, observer: object, value: Any) -> Any:
        """Return what the readers of ``observer`` get in place of ``value``."""
        return value

    def put(self, node: Node, value: Any) -> None:
        """Replace the value of ``node``, which nothing has read yet."""
        self._values[node] = value

    @property
    def alive(self) -> int:
        """Bytes of the tensors that are currently kept."""
        tensors = [each for each in self._values.values() if isinstance(each, Tensor)]
        return sum(each.numel() * each.element_size() for each in tensors)

    def release(self, node: Node) -> None:
        """Note that ``node`` has one reader less than ``start`` was told."""
        self._kept[node] -= 1
        self._drop_unread(node)

    def evaluate(self, nodes: Sequence[Node], given: Mapping[Node, Any]) -> Mapping[Node, Any]:
        """Return the values ``given`` and the values of ``nodes``, computed from them in order."""
        made = dict(given)
        for node in nodes:
            made[node] = self._call(node, made)
        return made

    def _step(self) -> None:
        node = self._nodes[self._next]
        self._next += 1
        self._values[node] = self._call(node, self._values)
        for source in node.all_input_nodes:
            self._readers[source] -= 1
            self._drop_unread(source)

    def _drop_unread(self, node: Node) -> None:
        if not self._readers[node] and not self._kept.get(node):
            self._values.pop(node, None)

    def _call(self, node: Node, values: Mapping[Node, Any]) -> Any:
        if node.op == "get_attr":
            return referent(self._module, node)
        if is_observer(node):
            return self.observed(referent(self._module, node), values[node.all_input_nodes[0]])
        args: Any = map_arg(node.args, values.__getitem__)
        kwargs: Any = map_arg(node.kwargs, values.__getitem__)
        return getattr(self, node.op)(node.target, args, kwargs)
