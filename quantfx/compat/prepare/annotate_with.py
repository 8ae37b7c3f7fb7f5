"""Let a quantizer annotate, and translate its annotations into quantfx's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule

from quantfx.compat.terms.annotated_edges import AnnotatedEdges
from quantfx.compat.terms.errors import foreign_code
from quantfx.compat.terms.subgraphs import quantizable_graphs
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import set_annotation


@dataclass(frozen=True)
class AnnotateWith(Pass):
    """Translates ``meta["quantization_annotation"]``, which the quantizer writes.

    Attributes:
        quantizer: A quantizer.
    """

    quantizer: Any

    name = "annotate-with"
    provides = frozenset({"annotated"})
    breaks = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Annotate, validate and translate every graph."""
        for _, graph_module in all_graphs(module):
            for node in graph_module.graph.nodes:
                set_annotation(node, None)
        count = 0
        for path, graph_module in list(quantizable_graphs(module)):
            with foreign_code():
                self.quantizer.annotate(graph_module)
                self.quantizer.validate(graph_module)
            for node, annotation in AnnotatedEdges(path, graph_module).annotations(
                type(self.quantizer).__name__
            ):
                set_annotation(node, annotation)
                count += 1
        return PassResult(stats={"annotated": count})
