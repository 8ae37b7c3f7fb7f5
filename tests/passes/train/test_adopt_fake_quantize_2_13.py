"""Weights that torch.ao 2.13's modules for training have quantized keep the scales they found."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

import quantfx
from quantfx import backends
from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.graphs import attribute
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import records_of
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.passes.train.adopt_fake_quantize import AdoptFakeQuantize
from tests import unchecked
from tests.backends.native_models import model_of
from tests.refusals import refused

EXACT = backends.get("native", target="any", engine="qnnpack")  # full range on every CPU
ROWS = [
    *(f"nnqat.Conv{n}d" for n in (1, 2, 3)),
    *(f"nniqat.ConvBn{relu}{n}d" for n in (1, 2, 3) for relu in ("", "ReLU")),
    "nnqat.Linear",
    "nniqat.LinearReLU",
    "nniqat.LinearBn1d",
]


@pytest.mark.parametrize("row", ROWS)
def test_the_scale_of_training_is_the_scale_of_the_weight(row: str) -> None:
    model, inputs = model_of(row)
    result = unchecked.quantize(model, inputs, backend=EXACT)
    found = result.quantized.graph.find_nodes(op="call_function", target=DEQUANTIZE_PER_CHANNEL)
    (dequantize,) = found
    scales = attribute(result.quantized, str(dequantize.args[1].target))
    fake: Any = model.weight_fake_quant
    expected, _ = fake.calculate_qparams()
    torch.testing.assert_close(scales, expected, rtol=1e-6, atol=0)
    with torch.no_grad():  # its weights are rounded there, too: what is left is that of activations
        error = (result.module(*inputs) - model(*inputs)).abs().max()
        assert error < 0.02 * model(*inputs).abs().max()


def test_a_network_trained_by_fx_graph_mode_agrees_with_its_conversion() -> None:
    """Activations have fake quantizes there, which stay: they are replaced before capture."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    x = torch.randn(4, 3, 10, 10)
    qconfig: Any = get_default_qat_qconfig("x86")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared: Any = prepare_qat_fx(model.train(), QConfigMapping().set_global(qconfig), (x,))
        optimizer = torch.optim.SGD(prepared.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            prepared(x).square().mean().backward()
            optimizer.step()
        prepared.eval()
        prepared.apply(torch.ao.quantization.disable_observer)
        converted: Any = convert_fx(copy.deepcopy(prepared))
    for name, _ in list(prepared.named_children()):
        if name.startswith("activation_post_process"):
            setattr(prepared, name, nn.Identity())
    prepared.eval()
    result = unchecked.quantize(prepared, (x,), backend=EXACT)
    assert [site.kernel for site in result.report.sites] == [
        "quantized.conv2d_relu",
        "quantized.conv2d",
    ]
    expected, got = converted(x), result.module(x)
    assert (got - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_weight_that_was_never_seen_is_an_error() -> None:
    from torch.ao.nn import qat as nnqat

    qconfig: Any = get_default_qat_qconfig("x86")  # type: ignore[no-untyped-call]
    layer: Any = nnqat.Linear(4, 4, qconfig=qconfig)
    layer.weight_fake_quant.activation_post_process.reset_min_max_vals()
    graph = quantfx.capture(layer.eval(), (torch.randn(2, 4),))
    with refused("never-run", CalibrationError, site="fused_moving_avg_obs_fake_quant"):
        AdoptFakeQuantize().run(graph, Context())


def test_a_graph_without_them_is_left_alone() -> None:
    graph = quantfx.capture(nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    done = Pipeline((AdoptFakeQuantize(),)).run(graph)
    assert not records_of(done)[-1].changed
