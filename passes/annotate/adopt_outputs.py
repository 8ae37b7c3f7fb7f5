"""Let readers of a quantized result take it in its own qparams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch.fx import GraphModule, Node

from quantfx.passes.graph.boundary import GraphNode, operands, resolve
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import Annotation, annotated, annotation_of, set_annotation
from quantfx.passes.quant.spec import QuantSpec, SharedSpec, Spec


@dataclass(frozen=True)
class AdoptOutputs(Pass):
    """``conv(sigmoid(x))``: the convolution reads the sigmoid's result in its fixed qparams.

    Otherwise it would be quantized twice, to its own range and to the reader's. A result that
    shares qparams with such an input takes them over. Inputs that must share one range, as in a
    cat, adopt a result only if all of them can.

    Attributes:
        unless: Kernels whose result shares qparams with the input although its values may lie
            beyond the input's range: they adopt nothing.
    """

    unless: tuple[str, ...] = ()

    name = "adopt-outputs"
    requires = frozenset({"annotated"})
    breaks = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Let inputs share with the outputs they read, in every graph and in graph order."""
        adoption = _Adoption(operands(module))
        for path, graph_module in all_graphs(module):
            for node, annotation in annotated(graph_module.graph):
                if annotation.kernel not in self.unless:
                    adoption.visit(path, node, annotation)
        count = len(adoption.adopted)
        return PassResult(stats={"adopted": count})


@dataclass
class _Adoption:
    """The adoptions so far.

    Attributes:
        outer: What placeholders of control flow stand for.
        adopted: Input -> the spec that it adopted.
        outputs: Result that shares qparams with such an input -> the same spec.
    """

    outer: Mapping[Node, GraphNode]
    adopted: dict[Site, QuantSpec] = field(default_factory=dict[Site, QuantSpec])
    outputs: dict[Site, QuantSpec] = field(default_factory=dict[Site, QuantSpec])

    def visit(self, path: str, node: Node, annotation: Annotation) -> None:
        """Adopt what ``node`` can; its producers have been visited."""
        inputs = tuple(self._inputs(path, node, annotation))
        output = annotation.output
        source = next((site for slot, site in annotation.shares if not slot), None)
        if output is not None and source is not None and source in self.adopted:
            self.outputs[Site(path, node.name)] = self.adopted[source]
            output = SharedSpec(source)
        set_annotation(node, replace(annotation, inputs=inputs, output=output))

    def _inputs(self, path: str, node: Node, annotation: Annotation) -> Iterator[tuple[str, Spec]]:
        offers = {
            slot: offer
            for slot, spec in annotation.inputs
            if (offer := self._offer(path, read_slot(node, slot), spec)) is not None
        }
        ties = [(slot, site.slot) for slot, site in annotation.shares if slot]
        tied = {slot for tie in ties for slot in tie}
        specs = {offers[slot][1] if slot in offers else None for slot in tied}
        for slot, spec in annotation.inputs:
            if slot in offers and (slot not in tied or len(specs) == 1):
                site, adopted = offers[slot]
                self.adopted[Site(path, node.name, slot)] = adopted
                yield slot, SharedSpec(site)
            else:
                yield slot, spec

    def _offer(self, path: str, node: Node, wanted: Spec) -> tuple[Site, QuantSpec] | None:
        """Return the result behind ``node`` with its spec, if the reader takes its integers."""
        graph, producer = resolve((path, node), self.outer)
        site = Site(graph, producer.name)
        source = annotation_of(producer)
        spec = self.outputs.get(site, None if source is None else source.output)
        if not isinstance(spec, QuantSpec) or not isinstance(wanted, QuantSpec) or spec == wanted:
            return None
        same = (spec.dtype, spec.axis, spec.dynamic) == (wanted.dtype, wanted.axis, wanted.dynamic)
        within = wanted.quant_min <= spec.quant_min and spec.quant_max <= wanted.quant_max
        return (site, spec) if same and within else None
