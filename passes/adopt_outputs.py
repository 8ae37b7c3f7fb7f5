"""Let who reads a quantized result take it in the qparams that it comes in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.annotation import Annotation, annotation_of, set_annotation
from quantfx.passes.base import Context, Pass, PassResult
from quantfx.passes.boundary import Place, operands, resolve
from quantfx.passes.graphs import Site, all_graphs
from quantfx.passes.slots import read_slot
from quantfx.passes.spec import QuantSpec, SharedSpec, Spec


@dataclass(frozen=True)
class AdoptOutputs(Pass):
    """``conv(sigmoid(x))``: the convolution reads what the sigmoid yields, in fixed qparams.

    Else it would be quantized twice, to its own range and to that which the reader asks for.
    Inputs that must share one range, as those of a cat, adopt a result only if all can.
    """

    name: ClassVar[str] = "adopt-outputs"
    requires: ClassVar[frozenset[str]] = frozenset({"annotated"})
    breaks: ClassVar[frozenset[str]] = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Let inputs share with the outputs they read, in every graph."""
        outer = operands(module)
        adopted = 0
        for path, graph_module in all_graphs(module):
            for node in graph_module.graph.nodes:
                annotation = annotation_of(node)
                if annotation is None:
                    continue
                inputs = tuple(_adopted(path, node, annotation, outer))
                changed = sum(
                    new != old for new, old in zip(inputs, annotation.inputs, strict=True)
                )
                if changed:
                    set_annotation(node, replace(annotation, inputs=inputs))
                    adopted += changed
        return PassResult(adopted > 0, stats={"adopted": adopted})


def _adopted(
    path: str, node: Node, annotation: Annotation, outer: Mapping[Node, Place]
) -> Iterator[tuple[str, Spec]]:
    """Yield the inputs of ``node``, those that adopt a result with the site they share with."""
    offers = {
        slot: offer
        for slot, spec in annotation.inputs
        if (offer := _offer(path, read_slot(node, slot), spec, outer)) is not None
    }
    tied = _tied(node, annotation)
    specs = {offers[slot].spec if slot in offers else None for slot in tied}
    for slot, spec in annotation.inputs:
        adopts = slot in offers and (slot not in tied or len(specs) == 1)
        yield slot, SharedSpec(offers[slot].site) if adopts else spec


@dataclass(frozen=True)
class _Offer:
    """A result that is quantized otherwise than its reader asks for, but to the same integers."""

    site: Site
    spec: QuantSpec


def _offer(path: str, node: Node, wanted: Spec, outer: Mapping[Node, Place]) -> _Offer | None:
    graph, producer = resolve((path, node), outer)
    source = annotation_of(producer)
    spec = None if source is None else source.output
    if not isinstance(spec, QuantSpec) or not isinstance(wanted, QuantSpec) or spec == wanted:
        return None
    same = (spec.dtype, spec.axis, spec.dynamic) == (wanted.dtype, wanted.axis, wanted.dynamic)
    return _Offer(Site(graph, producer.name), spec) if same else None


def _tied(node: Node, annotation: Annotation) -> set[str]:
    """Return the inputs that share with each other, as the elements of a list do."""
    ties = [(slot, site.slot) for slot, site in annotation.shares if slot]
    return {slot for tie in ties for slot in tie}
