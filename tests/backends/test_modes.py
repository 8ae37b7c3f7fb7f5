"""Modes side by side in one model, down to numbers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from quantfx import Config, backends
from quantfx.passes.errors import CalibrationError
from quantfx.passes.quant.spec import QuantSpec
from quantfx.patterns.schema import is_operator_call
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.models.small import mlp
from tests.refusals import refused

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Mixed(nn.Module):
    """Convolution -> four linears, one for each mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.a, self.b, self.c, self.d = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)).mean((2, 3))
        return self.d(torch.relu(self.c(torch.tanh(self.b(torch.relu(self.a(y)))))))


MIXED = (
    Config("static").type(nn.Linear, "dynamic").module("c", "fp16").module("d", "weight-only")
).module("a", "static")


def noise(quantized: Tensor, exact: Tensor) -> float:
    error = (quantized - exact).square().mean()
    return float(10 * torch.log10(exact.square().mean() / error))


def test_static_dynamic_fp16_and_weight_only_in_one_graph() -> None:
    model = seeded(Mixed)
    result = unchecked.quantize(model, (X,), config=MIXED)
    calls = Counter(
        str(node.target).removeprefix("quantized_decomposed.")
        for node in result.quantized.graph.nodes
        if is_operator_call(node) and "quantized_decomposed" in str(node.target)
    )
    assert calls == {
        "quantize_per_tensor.default": 2,  # conv, a
        "dequantize_per_tensor.default": 2,
        "choose_qparams.tensor": 1,  # b
        "quantize_per_tensor.tensor": 1,
        "dequantize_per_tensor.tensor": 1,
        "dequantize_per_channel.default": 4,  # weights of conv, a, b, d
        "convert_element_type.no_fuse": 1,  # weight of c
    }
    with torch.no_grad():
        assert noise(result.quantized(X), model(X)) > 25
    assert result.report.planned == result.report.converted == 5


@pytest.mark.parametrize("mode", ["dynamic", "fp16", "weight-only"])
def test_modes_that_need_no_calibration(mode: str) -> None:
    model, x = mlp(), torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    result = unchecked.quantize(model, (x,), calibration=None, config=mode)
    with torch.no_grad():
        assert noise(result.quantized(x), model(x)) > 30


def test_static_quantization_says_that_it_needs_data() -> None:
    with refused("never-run", CalibrationError, site="0 (linear).input"):
        unchecked.quantize(mlp(), (torch.randn(4, 8),), calibration=None)


def test_dynamic_weights_are_pair_bounded_where_sums_saturate() -> None:
    backend = backends.get("x86", target="avx2", config="dynamic")
    weight = backend.recipe.spec("linear_weight")
    assert isinstance(weight, QuantSpec)
    assert weight.pair_bound == "adjacent"
    templates = backend.recipe.patterns.of_mode("dynamic").templates
    specs = {template.group: template.specs["w"] for template in templates}
    # In 127 steps both ways no two products of recurrent layers leave 16 bits.
    assert specs == {"linear": "linear_weight", "rnn": "recurrent_weight"}


def test_the_backend_of_a_config_is_another_value() -> None:
    backend = backends.get("x86", target="any")
    assert backend.with_config("dynamic") == backends.get("x86", target="any", config="dynamic")
    assert backend.recipe.config == Config("static")
    assert backend.recipe.patterns.modes == (
        "static", "dynamic", "fp16", "weight-only", "weight-only-4bit",
    )  # fmt: skip
    xpu = backends.get("xpu", target="any").recipe.patterns
    assert xpu.modes == ("static", "weight-only", "weight-only-4bit")
    assert {each.group for each in xpu.templates if each.mode != "static"} == {"embedding"}


@pytest.mark.parametrize("mode", ["fp16", "weight-only"])
@pytest.mark.parametrize("shape", [(0, 3), (0, 5, 3), (2, 0, 3), (0, 2, 3, 3)])
def test_no_rows_keep_their_dimensions(shape: tuple[int, ...], mode: str) -> None:
    """torch 2.13: oneDNN's fp16 linears return two dimensions of what holds nothing."""
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    x = torch.randn(shape)
    result = unchecked.quantize(model, (x,), config=mode)
    assert result.module(x).shape == result.quantized(x).shape == (*shape[:-1], 2)


def test_a_table_of_a_static_model_stays_float() -> None:
    """Its template is of another mode: nothing planned it, so nothing packs it in 8 bits."""
    model = seeded(lambda: nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 4)))
    words = torch.tensor([[1, 3, 5]])
    result = unchecked.quantize(model, (words,), backend="native")
    targets = {str(node.target) for node in result.module.graph.nodes}
    assert "aten.embedding.default" in targets
    assert "quantized.linear.default" in targets
