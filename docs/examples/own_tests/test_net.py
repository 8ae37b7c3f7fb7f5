"""The model is quantized as far as it was, and to the same graph."""

from __future__ import annotations

import pytest
import torch
from net import Net

import quantfx
from quantfx.testing import GraphSnapshot, assert_quantized


@pytest.fixture(scope="module")
def result() -> quantfx.Result:
    """The quantized model; the target is named, so that every CPU gives the same graph."""
    torch.manual_seed(0)
    model, images = Net().eval(), torch.randn(4, 3, 8, 8)
    backend = quantfx.backends.get("x86", target="avx2")
    config = quantfx.Config().op("lstm", None)  # a decision that the test states
    return quantfx.quantize(model, (images,), calibration=[images], backend=backend, config=config)


def test_only_the_recurrent_layer_stays_float(result: quantfx.Result) -> None:
    assert_quantized(result, lowered={"conv2d": 1, "linear": 1}, float_sites=["memory", "mean"])


def test_the_graph_is_the_same(result: quantfx.Result, graph_snapshot: GraphSnapshot) -> None:
    graph_snapshot(result.quantized, "qdq")
