"""Let training round the weights of inference, which have their batch norm folded in."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.layers.scaled_layer import BatchNormScale, scale_layer, scaled_layer_of
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.annotation import annotation_of
from quantfx.patterns.schema import argument_value

_BATCH_NORM = torch.ops.aten.batch_norm.default


class FuseQatConvBn(GraphPass):
    """``norm(conv(x, w, b)) -> norm(conv(x, w * s) / s + b)``, s = gamma / sqrt(var + eps).

    Applies where annotate-conv-bn matched; a graph that is not for training has no such match. The
    batch norm stays, with its eps, momentum and parameters, and trains as before.
    """

    name = "fuse-qat-conv-bn"
    counts = "fused"
    requires = frozenset({"annotated"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite around every batch norm that was annotated with a layer."""
        scale = BatchNormScale()
        for layer, norm in list(_find_annotated(editor.module)):
            scale_layer(editor, layer, norm, scale)
            editor.remark("applied", norm.name, f"with {layer.name}")
        return len(editor.remarks)


def _find_annotated(module: GraphModule) -> Iterator[tuple[Node, Node]]:
    """Yield the anchor of each match with its annotated batch norm."""
    for norm in module.graph.find_nodes(op="call_function", target=_BATCH_NORM):
        layer, annotation = argument_value(norm, "input"), annotation_of(norm)
        if not isinstance(layer, Node) or annotation is None or layer.name != annotation.match:
            continue
        if scaled_layer_of(layer) is None:
            yield layer, norm
