"""Several quantizers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule, Node

from quantfx.compat.terms.quantizer import Quantizer
from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.errors import ComposeError


class ComposableQuantizer(Quantizer):
    """Runs quantizers in order; later ones must leave annotations of earlier ones alone.

    Args:
        quantizers: The quantizers; the first chooses first.
    """

    def __init__(self, quantizers: Sequence[Any]) -> None:
        self.quantizers = quantizers

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Return ``model`` after the rewrites of all quantizers, in order."""
        for quantizer in self.quantizers:
            model = quantizer.transform_for_annotation(model)
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        """Let every quantizer annotate ``model``.

        Raises:
            ComposeError: one of them changed or removed the annotation of an earlier one.
        """
        decided: dict[Node, object] = {}
        for quantizer in self.quantizers:
            quantizer.annotate(model)
            for node in model.graph.nodes:
                now = node.meta.get(ANNOTATION_KEY)
                if node in decided and now is not decided[node]:
                    verb = "changed" if ANNOTATION_KEY in node.meta else "removed"
                    raise ComposeError(
                        f"{type(quantizer).__name__} has {verb} annotations on {node.name}, which "
                        "an earlier quantizer had made",
                        rule="quantizers-differ",
                        site=node.name,
                        fix="annotate only nodes without an annotation",
                    )
                if ANNOTATION_KEY in node.meta:
                    decided[node] = now
        return model

    def validate(self, model: GraphModule) -> None:
        """Let every quantizer judge ``model``."""
        for quantizer in self.quantizers:
            quantizer.validate(model)
