"""The graphs of one model: the top graph and the graphs nested in control flow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from torch import Tensor
from torch.fx import GraphModule, Node

M = TypeVar("M")


class Site(NamedTuple):
    """One tensor slot of a model.

    Attributes:
        graph: Path of the graph, "" for the top one, e.g. ``true_graph_0``.
        node: Node name in that graph.
        slot: Schema argument name (``input``, ``tensors.1``); "" for the node's output.
    """

    graph: str
    node: str
    slot: str = ""

    def __str__(self) -> str:
        path = f"{self.graph}/{self.node}" if self.graph else self.node
        return f"{path}.{self.slot}" if self.slot else path


def nested(module: GraphModule) -> Iterator[tuple[Node, GraphModule]]:
    """Yield the graph modules that ``module``'s own graph refers to, with the referring node.

    torch.export stores them as direct children; most modules have none, and this is cheap to check.
    """
    if not any(isinstance(child, GraphModule) for child in module.children()):
        return
    for node in module.graph.find_nodes(op="get_attr", sort=True):
        value = referent(module, node)
        if isinstance(value, GraphModule):
            yield node, value


def all_graphs(module: GraphModule, path: str = "") -> Iterator[tuple[str, GraphModule]]:
    """Yield ``(path, graph module)`` for the module and, depth first, every nested one."""
    yield path, module
    for node, inner in nested(module):
        yield from all_graphs(inner, f"{path}.{node.target}" if path else str(node.target))


def attribute(module: GraphModule, target: str) -> object:
    """Return what ``module`` stores under the dotted ``target``."""
    value: object = module
    for name in target.split("."):
        value = getattr(value, name)
    return value


def is_stored(module: GraphModule, target: str) -> bool:
    """Whether ``module`` stores something under the dotted ``target``."""
    try:
        attribute(module, target)
    except AttributeError:
        return False
    return True


def referent(module: GraphModule, node: Node) -> object:
    """Return what a get_attr or call_module node of ``module`` refers to."""
    return attribute(module, str(node.target))


def constant(module: GraphModule, node: object) -> Tensor | None:
    """Return the stored tensor that ``node`` reads; None for anything but such a node."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value = referent(module, node)
    return value if isinstance(value, Tensor) else None


def constants(module: GraphModule) -> Iterator[tuple[Node, Tensor]]:
    """Yield the nodes of ``module`` that read stored tensors, with the tensors."""
    for node in module.graph.find_nodes(op="get_attr"):
        if (value := constant(module, node)) is not None:
            yield node, value


def module_calls(module: GraphModule, kind: type[M]) -> Iterator[tuple[Node, M]]:
    """Yield the nodes of ``module`` that call a module of ``kind``, with the module called."""
    for node in module.graph.find_nodes(op="call_module", sort=True):
        called = referent(module, node)
        if isinstance(called, kind):
            yield node, called
