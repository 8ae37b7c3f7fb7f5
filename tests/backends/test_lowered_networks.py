"""Whole networks, site by site: kernels against the dequantized float arithmetic they stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from quantfx.tools.models import photographs
from quantfx.tools.models.bert import BertConfig, bert, bert_inputs
from quantfx.tools.models.efficientnet_lite import load_efficientnet_lite0
from quantfx.tools.models.mobilenet_v2 import mobilenet_v2
from quantfx.tools.models.resnet import resnet50
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.models.small import cat_pool_net, residual_block

IMAGE = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
SMALL = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def compared(model: nn.Module, inputs: tuple[Any, ...], mode: str = "static") -> Counter[str]:
    """Check every site of ``model``; return how often each kernel was called."""
    result = unchecked.quantize(model.eval(), inputs, config=mode)
    assert result.report.planned == result.report.lowered
    comparisons = result.compare_sites()
    wrong = [each for each in comparisons if not each.within(steps=1, error=1e-5)]
    assert not wrong
    return Counter(each.kernel for each in comparisons)


def tiny_bert() -> tuple[nn.Module, tuple[Any, ...]]:
    config = BertConfig(layers=2, hidden=32, heads=2, vocabulary=50, positions=16)
    return seeded(lambda: bert(config)), bert_inputs(config, 2, 8)


def test_a_small_network() -> None:
    assert compared(cat_pool_net(), (SMALL,)) == {
        "qconv_pointwise": 3,
        "qlinear_pointwise": 1,
        "int8 max_pool2d": 1,
        "int8 cat": 1,
        "int8 flatten": 1,
    }


def test_a_residual_block() -> None:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    kernels = {"qconv_pointwise": 1, "qconv2d_pointwise.binary": 1}
    assert compared(residual_block(), (x,)) == kernels


@pytest.mark.parametrize(("mode", "kernels"), [
    ("static", {"qlinear_pointwise": 9, "qlinear_pointwise.binary": 4, "rows.int8": 2}),
    ("dynamic", {"qlinear_pointwise.tensor": 9, "qlinear_pointwise.binary_tensor": 4,
                 "rows.int8": 2}),
    ("fp16", {"linear_dynamic_fp16": 13}),
    ("weight-only", {"weight_linear": 13, "rows.int8": 2}),
])  # fmt: skip
def test_an_encoder_in_every_mode(mode: str, kernels: dict[str, int]) -> None:
    assert compared(*tiny_bert(), mode) == kernels


@pytest.mark.sweep
@pytest.mark.parametrize(("make", "kernels"), [
    (resnet50, {"qconv_pointwise": 37, "qconv2d_pointwise.binary": 16, "qlinear_pointwise": 1,
                "int8 max_pool2d": 1, "int8 flatten": 1}),
    (mobilenet_v2, {"qconv_pointwise": 42, "qconv2d_pointwise.binary": 10, "qlinear_pointwise": 1,
                    "int8 flatten": 1}),
])  # fmt: skip
def test_convolutional_networks(make: Callable[[], nn.Module], kernels: dict[str, int]) -> None:
    assert compared(seeded(make), (IMAGE,)) == kernels


@pytest.mark.sweep
def test_efficientnet_lite0_with_its_weights() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs requirements-demo.txt")
    crops = photographs.calibration_crops()[:4]
    kernels = compared(load_efficientnet_lite0(), (crops,))
    assert kernels["qconv_pointwise"] + kernels["qconv2d_pointwise.binary"] == 49


@pytest.mark.sweep
def test_bert_base() -> None:
    kernels = compared(seeded(bert), bert_inputs(BertConfig(), 1, 128))
    assert kernels["qlinear_pointwise"] + kernels["qlinear_pointwise.binary"] == 73
