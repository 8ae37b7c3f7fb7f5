"""Weights with a zero point become float for good; others stay integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantfx.passes.lower.expand_affine_weights import ExpandAffineWeights
from quantfx.passes.pipeline.pipeline import Pipeline
from tests import unchecked


class Dequantized(nn.Module):
    """A linear over an integer weight."""

    def __init__(self, zero_point: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-100, 100, (4, 8), dtype=torch.int8))
        self.register_buffer("scales", torch.rand(4))
        self.register_buffer("zero_points", torch.full((4,), zero_point))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.weight, self.scales, self.zero_points, 0, -128, 127, torch.int8
        )
        return nn.functional.linear(x, weight)


@pytest.mark.parametrize("zero_point", [0, 3])
def test_only_weights_with_a_zero_point_are_expanded(zero_point: int) -> None:
    model, x = Dequantized(zero_point).eval(), torch.rand(2, 8)
    graph = unchecked.capture(model, (x,))
    expanded = Pipeline((ExpandAffineWeights(),)).run(graph)
    assert torch.equal(expanded(x), model(x))
    operators = [str(n.target) for n in expanded.graph.nodes if n.op == "call_function"]
    dtypes = {buffer.dtype for buffer in expanded.buffers()}
    if zero_point:
        assert operators == ["aten.linear.default"]
        assert dtypes == {torch.float32}
    else:
        assert len(operators) == 2
        assert torch.int8 in dtypes
