"""Let a quantizer rewrite the model before it annotates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule

from quantfx.compat.exported.take_over import take_over
from quantfx.compat.terms.errors import foreign_code
from quantfx.compat.terms.subgraphs import quantizable_graphs
from quantfx.passes.graph.clone import recompile
from quantfx.passes.pipeline.base import Context, Pass, PassResult


@dataclass(frozen=True)
class TransformForAnnotation(Pass):
    """Runs the quantizer's rewrite on every graph.

    Attributes:
        quantizer: A quantizer.
    """

    quantizer: Any

    name = "transform-for-annotation"
    keeps_float = False  # whatever the quantizer does

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Replace each graph by the module that the quantizer returns."""
        recompile(module)  # the quantizer may run or export it
        for _, graph_module in list(quantizable_graphs(module)):
            with foreign_code():
                transformed = self.quantizer.transform_for_annotation(graph_module)
            if transformed is not graph_module:
                take_over(graph_module, transformed)
        return PassResult()
