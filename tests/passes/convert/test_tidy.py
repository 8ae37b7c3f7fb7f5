from __future__ import annotations

import torch
from torch.fx import Node

from quantfx.backends.x86 import x86
from quantfx.passes.convert.tidy import Tidy
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.qdq import dequantizes
from tests.models.small import mlp
from tests.unchecked import convert

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def test_a_dequantize_with_two_readers_is_duplicated() -> None:
    quantized = convert(mlp(), (X,), x86())
    expected = quantized(X)
    first, second = [
        n for n in quantized.graph.nodes if dequantizes(n) and n.args[0].op != "get_attr"
    ]
    linear = next(iter(second.users))
    # Give the first dequantize a second reader that throws nothing away.
    with quantized.graph.inserting_after(first):
        extra = quantized.graph.call_function(torch.ops.aten.sum.default, (first,))
    extra.meta["val"] = torch.zeros(())
    with quantized.graph.inserting_before(linear):
        zero = quantized.graph.call_function(torch.ops.aten.mul.Scalar, (extra, 0.0))
        added = quantized.graph.call_function(torch.ops.aten.add.Tensor, (second, zero))
    linear.replace_input_with(second, added)
    assert len(first.users) == 2
    tidied = Pipeline((Tidy(),)).run(quantized)
    readers: list[Node] = [n for n in tidied.graph.nodes if dequantizes(n)]
    assert len(readers) == 5
    assert all(len(node.users) == 1 for node in readers)
    torch.testing.assert_close(tidied(X), expected)
