"""The part of a q/dq graph that one match stands for, and where its exact inputs enter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.quant.annotation import Annotation, annotated
from quantfx.passes.quant.qdq import quantizes


@dataclass(frozen=True)
class Part:
    """One match in a q/dq graph.

    Attributes:
        anchor: The operator that the match is about.
        output: The node whose result leaves the match.
        annotation: Annotation of the anchor.
        inner: The nodes that compute the output from exact values, in order: quantize, dequantize
            and the operators of the match.
        exact: The nodes that ``inner`` reads and that the float graph has as well.
        stored: The nodes that ``inner`` reads and that depend on stored tensors only.
        quantizes: The quantize nodes of activations in ``inner``.
    """

    anchor: Node
    output: Node
    annotation: Annotation
    inner: tuple[Node, ...]
    exact: tuple[Node, ...]
    stored: tuple[Node, ...]
    quantizes: tuple[Node, ...]


def find_parts(quantized: GraphModule, common: Mapping[str, Node]) -> Iterator[Part]:
    """Yield the matches of the top graph of ``quantized`` that are computed with rounding.

    Args:
        quantized: The q/dq graph.
        common: By name, its nodes that the float graph computes as well.
    """
    stored = stored_nodes(quantized)
    matches: dict[str, dict[Node, Annotation]] = {}
    for node, annotation in annotated(quantized.graph):
        matches.setdefault(annotation.match, {})[node] = annotation
    for name, members in matches.items():
        nodes = list(members)
        anchor = next((node for node in nodes if node.name == name), nodes[0])
        output = next((node for node in nodes if members[node].is_output), nodes[-1])
        # Kernels that pack a weight quantize it themselves: the q/dq graph has the weight in float.
        if output.name in common and not members[anchor].packs:
            yield _part(anchor, output, members, common, stored)


def stored_nodes(module: GraphModule) -> frozenset[Node]:
    """Return the nodes that depend on stored tensors only: they are equal in every call."""
    found: set[Node] = set()
    for node in module.graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr" or (inputs and found.issuperset(inputs)):
            found.add(node)
    return frozenset(found)


def _part(
    anchor: Node,
    output: Node,
    members: Mapping[Node, Annotation],
    common: Mapping[str, Node],
    stored: frozenset[Node],
) -> Part:
    inner: set[Node] = set()
    exact: set[Node] = set()
    constant: set[Node] = set()
    pending = [output]
    while pending:
        node = pending.pop()
        if node in stored:
            constant.add(node)
        elif node.name in common and node not in members:
            exact.add(node)
        elif node not in inner:
            inner.add(node)
            pending += node.all_input_nodes
    ordered = tuple(sorted(inner))
    return Part(
        anchor,
        output,
        members[anchor],
        ordered,
        tuple(sorted(exact)),
        tuple(sorted(constant)),
        tuple(node for node in ordered if quantizes(node)),
    )


def left_out_sites(quantized: GraphModule, compared: Set[Site]) -> Iterator[tuple[str, str]]:
    """Yield the planned sites without numbers, once each, with the reason."""
    told: set[Site] = set()
    for path, graph_module in all_graphs(quantized):
        for _, annotation in annotated(graph_module.graph):
            site = Site(path, annotation.match)
            if site not in compared | told:
                told.add(site)
                yield str(site), _reason(path, annotation)


def _reason(path: str, annotation: Annotation) -> str:
    if path:
        return "it runs inside control flow"
    if annotation.packs:
        return "its kernel quantizes the weight itself, but the q/dq graph has it in float"
    return "the float graph lacks it"
