"""Quantizers, specs and observers of torchao run unchanged as clients of our prepare and convert."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantfx import compat
from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.errors import ComposeError
from tests.compat.sample import DQ, DQ_CHANNEL, ByNode, Q, aten, count, export, find, sqnr, x86
from tests.refusals import refused

xnnpack = pytest.importorskip("torchao.testing.pt2e._xnnpack_quantizer")


class ConvLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(torch.relu(self.bn(self.conv(x))).mean((2, 3)))
        return y


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def xnnpack_quantizer(**options: bool) -> Any:
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, **options)
    return xnnpack.XNNPACKQuantizer().set_global(config)


def test_the_xnnpack_quantizer_runs_unchanged() -> None:
    model = ConvLinear().eval()
    prepared = compat.prepare_pt2e(export(model, X), xnnpack_quantizer())
    prepared(X)
    module = compat.convert_pt2e(prepared)
    # Input and output of conv-relu and of linear, around a float mean.
    assert (count(module, Q), count(module, DQ_CHANNEL)) == (4, 2)
    assert count(module, aten.batch_norm.default) == 0
    assert sqnr(model(X), module(X)) > 25
    note: Any = find(module, aten.linear.default)[0].meta[ANNOTATION_KEY]
    assert type(note).__module__.startswith("torchao.")


def test_its_dynamic_form_composes_with_our_quantizers() -> None:
    composed = compat.ComposableQuantizer([xnnpack_quantizer(is_dynamic=True), x86()])
    prepared = compat.prepare_pt2e(export(ConvLinear(), X), composed)
    prepared(X)
    module = compat.convert_pt2e(prepared)
    dynamic = torch.ops.quantized_decomposed.dequantize_per_tensor.tensor
    assert count(module, dynamic) > 0


def test_composed_quantizers_must_not_touch_what_others_decided() -> None:
    def replace(node: Any) -> compat.QuantizationAnnotation | None:
        known = ANNOTATION_KEY in node.meta
        return compat.QuantizationAnnotation() if known else None

    composed = compat.ComposableQuantizer([xnnpack_quantizer(), ByNode(replace)])
    with refused("quantizers-differ", ComposeError, site="conv_weight", says="ByNode"):
        compat.prepare_pt2e(export(ConvLinear(), X), composed)


def test_embedding_tables() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 16)

        def forward(self, index: Tensor) -> Tensor:
            y: Tensor = self.table(index)
            return y

    model, index = Table(), torch.tensor([1, 5, 9])
    prepared = compat.prepare_pt2e(export(model, index), compat.EmbeddingQuantizer())
    module = compat.convert_pt2e(prepared)
    assert (count(module, DQ_CHANNEL), count(module, DQ)) == (1, 0)
    assert {b.dtype for b in module.buffers()} >= {torch.uint8}
    assert sqnr(model(index), module(index)) > 35
