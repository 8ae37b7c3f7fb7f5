"""Assertions that torch.export writes: about tensors, and about sizes that depend on data."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import all_graphs
from quantfx.patterns.schema import argument_value, resolve_op

ASSERT_TENSOR = resolve_op("aten._assert_tensor_metadata.default")
_ASSERT = resolve_op("aten._assert_scalar.default")


def asserts_in(module: GraphModule) -> frozenset[str]:
    """Return the messages of all assertions about sizes in the graphs."""
    return frozenset(text for _, _, text in _asserts(module))


def keep_asserts(module: GraphModule, kept: frozenset[str]) -> None:
    """Remove assertions with messages other than ``kept``.

    An export for the example's sizes asserts that no more rows are selected than the example has. A
    graph that is valid for other sizes must make the assertions of an export with free sizes.

    Args:
        module: Changed in place.
        kept: Messages from ``asserts_in``.
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
            # The message ends with a node's name, which may differ in another export.
            text = str(argument_value(node, "assert_msg"))
            yield graph_module, node, text.rpartition(" on node ")[0] or text
