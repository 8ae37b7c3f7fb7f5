"""Rebind annotations after a copy: they refer to nodes of the original graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

from torch.fx import GraphModule, Node

from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.graph.graphs import all_graphs


def rebind_annotations(module: GraphModule) -> None:
    """Make every quantizer's annotation in ``module`` refer to nodes of its own graph.

    Nodes are found by name; references to removed nodes, such as a folded weight, stay as they are.
    The annotations are replaced, not changed, because the original module still has them.
    """
    for _, graph_module in all_graphs(module):
        nodes = {node.name: node for node in graph_module.graph.nodes}
        for node in graph_module.graph.nodes:
            annotation: Any = node.meta.get(ANNOTATION_KEY)
            if annotation is None:
                continue
            rebound = copy.copy(annotation)
            rebound.input_qspec_map = {
                _node(producer, nodes): _spec(spec, nodes)
                for producer, spec in annotation.input_qspec_map.items()
            }
            rebound.output_qspec = _spec(annotation.output_qspec, nodes)
            node.meta[ANNOTATION_KEY] = rebound


def _spec(spec: Any, nodes: Mapping[str, Node]) -> Any:
    if not is_dataclass(spec) or isinstance(spec, type):
        return spec
    if hasattr(spec, "edge_or_node"):
        return replace(spec, edge_or_node=_place(getattr(spec, "edge_or_node"), nodes))  # noqa: B009
    if hasattr(spec, "derived_from"):
        places = [_place(place, nodes) for place in getattr(spec, "derived_from")]  # noqa: B009
        return replace(spec, derived_from=places)
    return spec


def _place(place: Any, nodes: Mapping[str, Node]) -> Any:
    if isinstance(place, tuple):
        return tuple(_node(node, nodes) for node in place)
    return _node(place, nodes)


def _node(node: Any, nodes: Mapping[str, Node]) -> Any:
    return nodes.get(node.name, node) if isinstance(node, Node) else node
