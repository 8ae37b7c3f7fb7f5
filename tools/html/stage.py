"""A graph in the form of the page: operators, edges and enclosing modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from quantfx.passes.draw.canonical_order import canonical_names, canonical_order
from quantfx.passes.draw.picture import Picture
from quantfx.passes.draw.reading import read_picture
from quantfx.passes.graph.clone import HoldsGraph
from quantfx.passes.graph.graphs import Site, all_graphs, module_calls
from quantfx.passes.quant.lowered import lowered_of, region_of

# Drawn on edges, not as boxes: half of all nodes, none of which computes.
_PILLS = ("quantize", "observe")
_REGION = "one call of a prepared plan"
_INTEGERS = ("int8", "dequantize")


def stage_of(name: str, about: str, module: GraphModule, known: Collection[str]) -> dict[str, Any]:
    """Return the graph ``module`` as plain data.

    A node is ``[name, kind, title, details, boxes, sites]``, with its enclosing modules as indices
    of ``boxes``, and the sites that it stands for. An edge is ``[source, target, kind, label]``,
    with indices of nodes.

    Args:
        name: Name of the stage.
        about: Description in a sentence.
        module: The graph.
        known: Sites that have an explanation.
    """
    picture = read_picture(module)
    # The call of a region does not belong to the module of its last operator.
    calls = {edge.source for edge in picture.edges if edge.kind == "nested"}
    sites = _sites(module)
    drawn = [node for node in picture.nodes.values() if node.kind not in _PILLS]
    held = Counter(path for node in drawn for path in node.containers)
    # A box around one node says no more than the node.
    shown = [path for path in picture.containers if held[path] > 1]
    boxes = {path: index for index, path in enumerate(shown)}
    index = {node.name: number for number, node in enumerate(drawn)}
    return {
        "name": name,
        "about": about,
        "boxes": [[p, _REGION if p in calls else picture.containers[p]] for p in shown],
        "nodes": [
            [
                node.name,
                node.kind,
                node.title,
                list(node.details),
                _around(node.containers, boxes) if node.name not in calls else [],
                [site for site in sites.get(node.name, ()) if site in known],
            ]
            for node in drawn
        ],
        "edges": [list(edge) for edge in dict.fromkeys(_edges(picture, index))],
    }


def _around(containers: tuple[str, ...], boxes: Mapping[str, int]) -> list[int]:
    return [boxes[path] for path in containers if path in boxes]


def _edges(picture: Picture, index: Mapping[str, int]) -> Iterator[tuple[int, int, str, str]]:
    into = {e.target: e for e in picture.edges if picture.nodes[e.target].kind in _PILLS}
    for edge in picture.edges:
        if edge.target not in index:
            continue
        source, label = edge.source, edge.label
        flows: str = "int8" if edge.kind in _INTEGERS else edge.kind
        while source not in index:
            pill = picture.nodes[source]
            flows = "observed" if pill.kind == "observe" else "int8"
            label = " ".join(word for word in (edge.label, pill.title, pill.qparams) if word)
            source = into[source].source
        yield index[source], index[edge.target], flows, label


def _sites(module: GraphModule) -> dict[str, tuple[str, ...]]:
    """Return the q/dq sites that a node is or stands for, by canonical name."""
    found: dict[str, tuple[str, ...]] = {}
    pending = [(path, path, graph) for path, graph in all_graphs(module)]
    for path, of_sites, graph_module in pending:
        prefix = f"{path}/" if path else ""
        for node, name in canonical_names(canonical_order(graph_module.graph)).items():
            found[prefix + name] = _stands_for(node, of_sites)
        for node, held in module_calls(graph_module, nn.Module):
            if isinstance(held, HoldsGraph):  # a region, in which nodes keep their names
                inner = f"{path}.{node.target}" if path else str(node.target)
                pending.append((inner, of_sites, held.graph))
    return found


def _stands_for(node: Node, path: str) -> tuple[str, ...]:
    lowered = lowered_of(node)
    calls = region_of(node) or ((lowered,) if lowered else ())
    if not calls:
        return (str(Site(path, node.name)),)
    own = (Site(call.site.graph, name) for call in calls for name in call.covers)
    return tuple(dict.fromkeys(map(str, (*(call.site for call in calls), *own))))
