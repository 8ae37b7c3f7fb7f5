"""Assertions that torch.export writes of sizes that depend on data."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import all_graphs
from quantfx.patterns.schema import argument_value, resolve_op

_ASSERT = resolve_op("aten._assert_scalar.default")


def asserts_in(module: GraphModule) -> frozenset[str]:
    """Return what the graphs assert of sizes, as the messages say it."""
    return frozenset(text for _, _, text in _asserts(module))


def keep_asserts(module: GraphModule, kept: frozenset[str]) -> None:
    """Take out assertions with other messages than ``kept``.

    An export for the example's sizes asserts that no more rows are selected than the example has. A
    graph that holds for other sizes as well must assert what an export with free sizes does.

    Args:
        module: Changed in place.
        kept: Messages, of ``asserts_in``.
    """
    for graph_module, node, text in list(_asserts(module)):
        if text not in kept:
            condition = argument_value(node, "self")
            graph_module.graph.erase_node(node)
            while isinstance(condition, Node) and condition.op != "placeholder":
                if condition.users:
                    break
                unused, (condition, *_) = condition, [*condition.all_input_nodes, None]
                graph_module.graph.erase_node(unused)


def _asserts(module: GraphModule) -> Iterator[tuple[GraphModule, Node, str]]:
    for _, graph_module in all_graphs(module):
        for node in graph_module.graph.find_nodes(op="call_function", target=_ASSERT):
            # The message ends with the name of a node, which another export may call otherwise.
            text = str(argument_value(node, "assert_msg"))
            yield graph_module, node, text.rpartition(" on node ")[0] or text
