"""The edges and nodes of one graph that a quantizer annotated, in quantfx's terms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.compat.terms.foreign_spec import ForeignSpec, kind_of
from quantfx.compat.terms.quant_spec import quant_spec
from quantfx.compat.terms.specs import ANNOTATION_KEY, EdgeOrNode
from quantfx.passes.errors import AnnotationError, SpecError
from quantfx.passes.graph.aliasing import writes_to
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.slots import slots_of
from quantfx.passes.quant.annotation import Annotation
from quantfx.passes.quant.spec import QuantSpec, SharedSpec, Spec


class AnnotatedEdges:
    """Reads the annotations that a quantizer left in the meta of a graph's nodes.

    An edge is all slots of the reader that the producer feeds; the first stands for all. Some
    annotated edges and nodes cannot be observed: a buffer that an operator writes to (the write
    would be lost), or a result that is not a tensor. Edges that share with such an edge share with
    each other.

    Args:
        path: Path of the graph.
        module: Owner of the graph.
    """

    def __init__(self, path: str, module: GraphModule) -> None:
        self._path = path
        self._module = module
        self._specs = dict(_specs(module))
        self._slots = {edge: self._observable_slots(edge) for edge in self._specs}
        self._stand_in: dict[EdgeOrNode, Site] = {}

    def annotations(self, template: str) -> Iterator[tuple[Node, Annotation]]:
        """Yield quantfx's annotation for every node that the quantizer annotated.

        Args:
            template: Name of what made the annotations, for reports.
        """
        inputs: dict[Node, list[tuple[str, Spec]]] = {}
        outputs: dict[Node, Spec] = {}
        for edge, spec in self._specs.items():
            if not self._slots[edge]:
                continue
            translated = self._translate(edge, spec)
            if isinstance(edge, Node):
                outputs[edge] = translated
                continue
            first, *others = self._slots[edge]
            site = Site(self._path, edge[1].name, first)
            inputs.setdefault(edge[1], []).append((first, translated))
            inputs[edge[1]] += [(slot, SharedSpec(site)) for slot in others]
        for node in self._module.graph.nodes:
            if node in inputs or node in outputs:
                yield (
                    node,
                    Annotation(
                        template=template,
                        match=node.name,
                        kind=str(node.target),
                        kernel="",
                        reach="fused",
                        inputs=tuple(inputs.get(node, ())),
                        output=outputs.get(node),
                        implicit=bool(
                            getattr(node.meta[ANNOTATION_KEY], "allow_implicit_sharing", True)
                        ),
                        is_output=node in outputs,
                    ),
                )

    def sites(self) -> Iterator[tuple[EdgeOrNode, list[Site]]]:
        """Yield every observable edge or node with its sites; the first site stands for it."""
        for edge, slots in self._slots.items():
            reader = edge if isinstance(edge, Node) else edge[1]
            if slots:
                yield edge, [Site(self._path, reader.name, slot) for slot in slots]

    def site(self, edge: EdgeOrNode) -> Site:
        """Return the site that stands for ``edge``.

        Raises:
            AnnotationError: no slot of the reader is fed by the producer.
        """
        if isinstance(edge, Node):
            return Site(self._path, edge.name)
        producer, reader = edge
        for slot, feeds in slots_of(reader):
            if feeds is producer:
                return Site(self._path, reader.name, slot)
        message = f"{reader.name} does not read {producer.name}"
        fix = "name an edge of the graph"
        raise AnnotationError(message, rule="no-edge", site=reader.name, fix=fix)

    def _translate(self, edge: EdgeOrNode, spec: Any) -> Spec:
        if kind_of(spec) != "shared":
            return _concrete(edge, spec)
        target: EdgeOrNode = spec.edge_or_node
        seen = {edge}
        while target in self._specs and not self._slots[target]:
            if target in seen:
                message = f"{target} shares with itself"
                fix = "give the edge or node a spec of its own"
                raise AnnotationError(message, rule="shares-itself", site=str(target), fix=fix)
            seen.add(target)
            hidden = self._specs[target]
            if kind_of(hidden) != "shared":
                # The first that shares with an unobservable edge or node takes its spec.
                if target in self._stand_in:
                    return SharedSpec(self._stand_in[target])
                self._stand_in[target] = self.site(edge)
                return _concrete(edge, hidden)
            target = hidden.edge_or_node
        return SharedSpec(self.site(target))

    def _observable_slots(self, edge: EdgeOrNode) -> list[str]:
        """Return the slots of ``edge`` to observe; "" is the result."""
        if isinstance(edge, Node):
            return [""] if isinstance(edge.meta.get("val"), torch.Tensor) else []
        producer, reader = edge
        if producer in writes_to(reader) and self._from_buffers(producer):
            return []
        return [slot for slot, feeds in slots_of(reader) if feeds is producer]

    def _from_buffers(self, node: Node) -> bool:
        """Whether ``node`` is computed from stored tensors only, with a buffer among them."""
        pending, seen, buffers = [node], set[Node](), dict(self._module.named_buffers())
        found = False
        while pending:
            current = pending.pop()
            if current.op == "placeholder":
                return False
            found |= current.op == "get_attr" and str(current.target) in buffers
            seen.add(current)
            pending += [n for n in current.all_input_nodes if n not in seen]
        return found


def _specs(module: GraphModule) -> Iterator[tuple[EdgeOrNode, Any]]:
    for node in module.graph.nodes:
        annotation: Any = node.meta.get(ANNOTATION_KEY)
        if annotation is None:
            continue
        _refuse_keywords(node)
        for producer, spec in annotation.input_qspec_map.items():
            if not isinstance(producer, Node):
                raise AnnotationError(
                    f"{node.name} is annotated to quantize {producer!r}, which is not a node: a "
                    "constant has no edge",
                    rule="no-edge",
                    site=node.name,
                    fix="rewrite it as a tensor in transform_for_annotation",
                )
            if spec is not None:
                yield (producer, node), spec
        if annotation.output_qspec is not None:
            yield node, annotation.output_qspec


def _refuse_keywords(node: Node) -> None:
    keywords: list[str] = []
    map_arg(node.kwargs, lambda n: keywords.append(n.name))
    if keywords:
        message = f"{node.name} is annotated, but reads {', '.join(keywords)} as a keyword argument"
        fix = "pass tensors by position"
        raise AnnotationError(message, rule="keyword-tensor", site=node.name, fix=fix)


def _concrete(edge: EdgeOrNode, spec: Any) -> QuantSpec:
    """Return a spec that carries ``spec``; the range that it states is for drawings only."""
    observer = ForeignSpec.of(spec)
    try:
        known = quant_spec(spec, observer)
    except SpecError as error:
        told = "it contradicts itself: "
        raise error.within(f"the spec of {edge}", AnnotationError, told=told) from error
    return known or QuantSpec(torch.int8, -128, 127, observer=observer)
