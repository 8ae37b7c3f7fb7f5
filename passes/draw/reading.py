"""Read a graph module into a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.draw.boxes import Boxes
from quantfx.passes.draw.canonical_order import canonical_names, canonical_order
from quantfx.passes.draw.fold import fold, observed_type, quantized_type, written_qparams
from quantfx.passes.draw.groups import first_tensors
from quantfx.passes.draw.labels import constant_lines, kind_of, orders_matter, slots, title_of
from quantfx.passes.draw.names import value_name
from quantfx.passes.draw.picture import EdgeKind, Picture, PictureEdge, PictureNode
from quantfx.passes.graph.clone import HoldsGraph
from quantfx.passes.graph.graphs import module_calls
from quantfx.passes.graph.scopes import module_scope
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.qdq import has_qparams, quantizes

_INTEGERS = (torch.uint8, torch.int8, torch.quint8, torch.qint8)


def read_picture(module: GraphModule) -> Picture:
    """Return the drawing of ``module``, followed by the graphs nested in its control flow."""
    nodes: dict[str, PictureNode] = {}
    edges: list[PictureEdge] = []
    containers: dict[str, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    pending = [("", module)]
    for path, graph_module in pending:
        reader = _GraphReader(path, graph_module)
        nodes.update(reader.nodes())
        edges.extend(reader.edges())
        containers.update(reader.containers())
        aliases.update(reader.aliases())
        known = {path for path, _ in pending}
        pending.extend(graph for graph in reader.nested() if graph[0] not in known)
    # Edges to a nested graph point at the first node drawn in that graph.
    entry: dict[str, str] = {}
    for name, node in nodes.items():
        for container in node.containers[:1]:
            entry.setdefault(container, name)
    entering = tuple(
        PictureEdge(e.source, entry[e.target], e.label, e.kind) if e.kind == "nested" else e
        for e in edges
    )
    return Picture(nodes, entering, containers, aliases)


class _GraphReader:
    """Reads one graph; ``path`` leads to it, "" for the top one."""

    def __init__(self, path: str, module: GraphModule) -> None:
        self.module = module
        self.path = path
        self.order = canonical_order(module.graph)
        self.prefix = f"{path}/" if path else ""
        self.names = {n: self.prefix + name for n, name in canonical_names(self.order).items()}
        self.folded = fold(module, self.order)
        called = module_calls(module, nn.Module)
        self.regions = {node: each for node, each in called if isinstance(each, HoldsGraph)}
        self.groups = first_tensors(module, self.order, self.names, self.folded)
        self.boxes = Boxes(self.order, self.prefix)
        # A constant that is an output has no reader to write it in.
        self.drawn_constants = {
            producer
            for node in self.order
            if node.op == "output"
            for _, producer in slots(node)
            if producer in self.folded.constants
        }

    def nodes(self) -> Iterator[tuple[str, PictureNode]]:
        matches: dict[str, str] = {}
        outer = (self.path,) if self.path else ()
        for node in filter(self._is_drawn, self.order):
            name = self.names[node]
            matched = annotation_of(node)
            match = matched.match if matched is not None else None
            title, details = self._text(node)
            yield (
                name,
                PictureNode(
                    name=name,
                    kind="constant" if node in self.drawn_constants else kind_of(node),
                    title=title,
                    details=details,
                    scope=self.boxes.scope(node) or self.path,
                    containers=outer + self.boxes.around(node),
                    match=matches.setdefault(match, name) if match is not None else "",
                    template=matched.template if matched is not None and match is not None else "",
                    group=self.groups.get(node, ""),
                    qparams=written_qparams(node) if quantizes(node) else "",
                ),
            )

    def edges(self) -> Iterator[PictureEdge]:
        for node in filter(self._is_drawn, self.order):
            incoming = list(self._find_incoming(node))
            labelled = len(incoming) > 1 and orders_matter(node)
            for slot, edge in incoming:
                named = labelled and not edge.label
                yield replace(edge, label=slot) if named else edge

    def containers(self) -> dict[str, str]:
        return ({self.path: "nested graph"} if self.path else {}) | self.boxes.classes

    def nested(self) -> Iterator[tuple[str, GraphModule]]:
        for node, module in self.folded.graphs.items():
            yield self._nested_path(node), module
        for node, region in self.regions.items():
            yield self._nested_path(node), region.graph

    def aliases(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        drawn_for: dict[Node, tuple[str, ...]] = {}
        for node in reversed(self.order):
            if self._is_drawn(node):
                drawn_for[node] = (self.names[node],)
            else:
                readers = (name for user in node.users for name in drawn_for.get(user, ()))
                drawn_for[node] = tuple(dict.fromkeys(readers))
                yield self.names[node], drawn_for[node]
            yield self.prefix + node.name, drawn_for[node]

    def _is_drawn(self, node: Node) -> bool:
        return node not in self.folded or node in self.drawn_constants

    def _nested_path(self, node: Node) -> str:
        return f"{self.path}.{node.target}" if self.path else str(node.target)

    def _text(self, node: Node) -> tuple[str, tuple[str, ...]]:
        lines = tuple(constant_lines(node, self.folded.constants, module_scope(node)))
        if node in self.drawn_constants:
            return self.names[node], (str(self.folded.constants[node]),)
        if node.op == "output":
            return "output", ()
        if is_observer(node):
            return f"{observed_type(self.module, node)}{self._name_shared(node)}", ()
        if has_qparams(node):
            word = "q" if quantizes(node) else "dq"
            dynamic = " dynamic" if node in self.folded.dynamic else ""
            return f"{word} {quantized_type(node)}{dynamic}{self._name_shared(node)}", lines
        value = value_name(node.meta.get("val"))
        return title_of(node), (value, *lines) if value else lines

    def _name_shared(self, node: Node) -> str:
        """Name the tensor whose qparams ``node`` repeats; "" if ``node`` has them first."""
        group = self.groups.get(node, "")
        own = (self.names[node], *(self.names[n] for n in node.all_input_nodes))
        return f" = {group}" if group and group not in own else ""

    def _find_incoming(self, node: Node) -> Iterator[tuple[str, PictureEdge]]:
        name = self.names[node]
        for slot, producer in slots(node):
            if producer in self.folded.graphs:
                path = self._nested_path(producer)
                yield slot, PictureEdge(name, path, slot, "nested")
            elif self._is_drawn(producer) or producer in self.folded.dequantizes:
                yield slot, self._edge(producer, name)
        if node in self.regions:
            yield "", PictureEdge(name, self._nested_path(node), "", "nested")

    def _edge(self, producer: Node, target: str) -> PictureEdge:
        kind, label = _kind_of_edge(producer), ""
        if producer in self.folded.dequantizes:
            same = self.folded.dequantizes[producer]
            kind, label = ("dequantize", "") if same else ("mismatch", "dq ≠ q")
            producer = producer.all_input_nodes[0]
        return PictureEdge(self.names[producer], target, label, kind, self.groups.get(producer, ""))


def _kind_of_edge(producer: Node) -> EdgeKind:
    value = producer.meta.get("val")
    if quantizes(producer) or (isinstance(value, Tensor) and value.dtype in _INTEGERS):
        return "int8"
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool, int)):
        return "scalar"
    return "float"
