"""A dynamic range over the ends and zero is the range of the tensor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantfx.passes.lower.include_zero import IncludeZero
from quantfx.passes.pipeline.pipeline import Pipeline
from tests import unchecked

X = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("x", [X, X + 2, -X - 2, X - 0.5, torch.zeros(4, 8)])
def test_the_result_is_the_same_to_the_last_bit(x: Tensor) -> None:
    torch.manual_seed(0)
    module = unchecked.quantize(nn.Linear(8, 8).eval(), (x,), config="dynamic").quantized
    widened = Pipeline((IncludeZero(),)).run(module)
    assert str(widened.graph) != str(module.graph)
    assert torch.equal(widened(x), module(x))
