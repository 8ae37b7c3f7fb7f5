"""Quantized embedding tables."""

from __future__ import annotations

import torch
from torch.ao.quantization.observer import PerChannelMinMaxObserver
from torch.fx import GraphModule

from quantfx.compat.terms.quantizer import Quantizer
from quantfx.compat.terms.specs import ANNOTATION_KEY, QuantizationAnnotation, QuantizationSpec

_EMBEDDING = torch.ops.aten.embedding.default


class EmbeddingQuantizer(Quantizer):
    """Quantizes the table of every embedding to uint8, a float scale and zero point per row."""

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate every embedding of ``model``."""
        spec = QuantizationSpec(
            dtype=torch.uint8,
            qscheme=torch.per_channel_affine_float_qparams,
            ch_axis=0,
            observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-12),
        )
        for node in model.graph.find_nodes(op="call_function", target=_EMBEDDING):
            node.meta[ANNOTATION_KEY] = QuantizationAnnotation({node.args[0]: spec})
        return model

    def validate(self, model: GraphModule) -> None:
        """Accept every model."""
