"""Who asked for a spec, and the scale that was found."""

from __future__ import annotations

import pytest
import torch

from quantfx import Config
from quantfx.passes.quant.qdq import tensor_qparams
from tests.passes.report.explain.explained import Folded, explained, folded


def test_scale_zero_point_and_range_are_those_of_the_graph() -> None:
    [layer] = folded().explain("conv")
    image, weight = layer.tensors
    assert (image.site, image.slot, image.reads) == ("conv2d.input", "input", "x")
    assert (image.spec_name, image.asked_by) == ("act", "all")
    assert image.observer == "min_max"
    named = {node.name: node for node in folded().quantized.graph.nodes}
    quantize = named["quantize_per_tensor_default"]
    scale, zero_point, low, high, _ = tensor_qparams(quantize)
    found = image.qparams
    assert found is not None
    assert (found.dtype, found.scheme) == ("uint8", "per-tensor affine")
    assert found.scale == pytest.approx(scale)
    assert found.zero_point == zero_point
    assert (found.quant_min, found.quant_max, found.channels) == (low, high, 1)
    assert found.low == pytest.approx((low - zero_point) * scale)
    assert weight.reads == "conv_weight_s8"
    stored = dict(folded().quantized.named_buffers())["conv.weight_scale"]
    channels = weight.qparams
    assert channels is not None
    assert channels.channels == 4
    assert channels.scale_min == pytest.approx(float(stored.min()))
    assert channels.scale_max == pytest.approx(float(stored.max()))
    assert channels.scheme == "per-channel(0) symmetric"


def test_the_rule_that_asked_is_named_and_the_backend_else() -> None:
    config = Config().module("conv", activations={"observer": "min_max"})
    result = explained(Folded, config=config)
    image, weight = result.explain("conv")[0].tensors
    assert (image.observer, image.asked_by) == ("min_max", "module='conv'")
    assert (weight.observer, weight.asked_by) == ("weight_mse", "")
    read, _ = result.explain("head")[0].tensors
    assert (read.observer, read.asked_by) == ("mse", "")


@pytest.mark.parametrize(
    ("mode", "slot", "scheme"),
    [
        ("dynamic", "input", "per-tensor affine, found in each call"),
        ("fp16", "weight", "cast"),
    ],
)
def test_ranges_of_each_call_and_casts(mode: str, slot: str, scheme: str) -> None:
    result = explained(Folded, config=Config(mode).module("conv", None))  # type: ignore[arg-type]
    [layer] = result.explain("head")
    [tensor] = [each for each in layer.tensors if each.slot == slot]
    assert tensor.qparams is not None
    assert tensor.qparams.scheme == scheme
    assert tensor.qparams.scale is None
    assert not tensor.observer


def test_a_scale_that_fits_no_values_says_so() -> None:
    with pytest.warns(match="do not fit"):
        result = explained(Folded, torch.zeros(2, 3, 8, 8))
    image, _ = result.explain("conv")[0].tensors
    assert "calibration saw nothing but zeros" in image.reason
