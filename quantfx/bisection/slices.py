"""Parts of a graph as separate graphs, with the values of the whole graph as inputs."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg

from quantfx.bisection.graph_builder import GraphBuilder
from quantfx.passes.errors import BisectError
from quantfx.passes.graph.graphs import constant
from quantfx.passes.graph.scopes import module_scope
from quantfx.passes.graph.state import preserved_state


@dataclass(frozen=True)
class Argument:
    """``name = argument(value)``."""

    name: str
    value: Tensor


@dataclass(frozen=True)
class Stored:
    """``name = stored(target, value)``."""

    name: str
    target: str
    value: Tensor


@dataclass(frozen=True)
class Named:
    """A reference to another line's result, among arguments."""

    name: str


@dataclass(frozen=True)
class Call:
    """``name = target(*args, **kwargs)``, with `Named` in place of nodes."""

    name: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    scope: str = ""


@dataclass(frozen=True)
class Slice:
    """A graph as lines in order, and its results.

    Attributes:
        lines: Arguments, stored tensors and calls.
        results: Names of the lines that are returned.
    """

    lines: tuple[Argument | Stored | Call, ...]
    results: tuple[str, ...]
    calls: tuple[Call, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        calls = tuple(each for each in self.lines if isinstance(each, Call))
        object.__setattr__(self, "calls", calls)

    def build(self) -> tuple[GraphModule, tuple[Tensor, ...]]:
        """Return the graph, and values for its arguments."""
        builder, nodes = GraphBuilder(), dict[str, Node]()
        for line in self.lines:
            if isinstance(line, Argument):
                nodes[line.name] = builder.argument(line.name, line.value)
            elif isinstance(line, Stored):
                nodes[line.name] = builder.stored(line.name, line.target, line.value)
            else:
                given, named = map_named((line.args, dict(line.kwargs)), nodes)
                nodes[line.name] = builder.call(
                    line.name, line.target, *given, scope=line.scope, **named
                )
        return builder.module(*(nodes[each] for each in self.results)), tuple(builder.inputs)


def map_named(value: Any, nodes: Mapping[str, Any]) -> Any:
    """Return an argument with each `Named` replaced by its entry in ``nodes``."""
    if isinstance(value, Named):
        return nodes[value.name]
    if isinstance(value, (list, tuple)):
        return type(value)(map_named(each, nodes) for each in value)
    if isinstance(value, dict):
        return {key: map_named(each, nodes) for key, each in value.items()}
    return value


class Whole:
    """A graph that was run once, to be sliced.

    Args:
        graph: A captured graph.
        leaves: Values for its placeholders, in order.

    Attributes:
        units: The operators that can be taken out, each together with its ``getitem`` readers.
    """

    def __init__(self, graph: GraphModule, leaves: Sequence[object]) -> None:
        self._graph = graph
        self._values = _run(graph, leaves)
        calls = graph.graph.find_nodes(op="call_module")
        if calls:
            raise BisectError(
                f"node '{calls[0].name}' calls a module: only graphs of operators are reduced",
                rule="not-captured",
                site=calls[0].name,
                fix="give what capture returns",
            )
        ops = (node for node in graph.graph.nodes if node.op == "call_function")
        self.units = [node for node in ops if node.target is not operator.getitem]

    def slice(self, kept: Collection[Node]) -> Slice | None:
        """Return the graph of some units; None if they return no tensor or read a non-tensor."""
        inside = {*kept, *(user for node in kept for user in _parts(node))}
        lines: dict[Node, Argument | Stored | Call] = {}
        for node in self._graph.graph.nodes:
            if node not in inside:
                continue
            if not all(self._read(each, inside, lines) for each in node.all_input_nodes):
                return None
            args, kwargs = map_arg((node.args, dict(node.kwargs)), self._argument)
            lines[node] = Call(node.name, node.target, args, kwargs, module_scope(node))
        results = tuple(
            node.name
            for node in lines
            if node in inside
            and isinstance(self._values[node], Tensor)
            and not any(user in inside for user in node.users)
        )
        ordered = sorted(lines.values(), key=lambda line: not isinstance(line, Argument))
        return Slice(tuple(ordered), results) if results else None

    def near(self, names: Iterable[str], radius: int) -> list[Node]:
        """Return the units at most ``radius`` operators away from the named nodes."""
        wanted = set(names)
        found = {node for node in self._graph.graph.nodes if node.name in wanted}
        for _ in range(radius):
            found |= {other for node in found for other in (*node.all_input_nodes, *node.users)}
        return [node for node in self.units if node in found]

    def _read(
        self, node: Node, inside: set[Node], lines: dict[Node, Argument | Stored | Call]
    ) -> bool:
        """Add a line for a node that a unit reads, if needed; return whether it can be read."""
        if node in inside or node in lines:
            return True
        stored, value = constant(self._graph, node), self._values[node]
        if stored is not None:
            lines[node] = Stored(node.name, str(node.target), stored.detach())
        elif isinstance(value, Tensor):
            lines[node] = Argument(node.name, value)
        return isinstance(value, (Tensor, int, float, bool))

    def _argument(self, node: Node) -> Any:
        value = self._values[node]
        plain = isinstance(value, (int, float, bool)) and node.op != "get_attr"
        return value if plain else Named(node.name)


def _parts(node: Node) -> list[Node]:
    return [user for user in node.users if user.target is operator.getitem]


def _run(graph: GraphModule, leaves: Sequence[object]) -> dict[Node, Any]:
    """Return a copy of every node's value."""
    values: dict[Node, Any] = {}

    class Recorder(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            values[n] = value.detach().clone() if isinstance(value, Tensor) else value
            return value

    given = [each.clone() if isinstance(each, Tensor) else each for each in leaves]
    with torch.no_grad(), preserved_state(graph):
        Recorder(graph).run(*given, enable_io_processing=False)
    return values
