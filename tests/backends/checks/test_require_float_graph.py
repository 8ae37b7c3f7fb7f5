"""A q/dq graph is refused also where nothing is left of its facts; some q/dq in a model is not."""

from __future__ import annotations

import pickle

import torch
from torch import Tensor, nn

from quantfx.passes.errors import PipelineError
from quantfx.patterns.schema import resolve_op
from tests.models.small import cat_pool_net
from tests.refusals import refused
from tests.unchecked import quantize

QUANTIZE, DEQUANTIZE = (
    resolve_op(f"quantized_decomposed.{name}_per_tensor.default")
    for name in ("quantize", "dequantize")
)


class Rounds(nn.Module):
    """Two layers, of which the first reads what the model rounds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        how = (0.1, 128, 0, 255, torch.uint8)
        return self.second(self.first(DEQUANTIZE(QUANTIZE(x, *how), *how)))


def test_an_unpickled_network_with_pools_is_not_quantized_again() -> None:
    x = torch.randn(2, 3, 16, 16)
    once = quantize(cat_pool_net(), (x,), calibration=[x]).quantized
    with refused("not-captured", PipelineError, says="quantized already"):
        quantize(pickle.loads(pickle.dumps(once)), (x,), calibration=[x])


def test_a_model_that_rounds_a_tensor_of_its_own_is_quantized() -> None:
    x = torch.randn(4, 8)
    assert quantize(Rounds().eval(), (x,), calibration=[x]).report.planned == 2
