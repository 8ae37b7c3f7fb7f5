"""The names that code written for PT2E imports, observers among them."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn

import quantfx.compat as compat

OBSERVERS = (
    "FixedQParamsObserver", "HistogramObserver", "MinMaxObserver", "NoopObserver",
    "MovingAverageMinMaxObserver", "MovingAveragePerChannelMinMaxObserver", "ObserverBase",
    "PerChannelMinMaxObserver", "PlaceholderObserver", "RecordingObserver",
    "ReuseInputObserver", "UniformQuantizationObserverBase", "ObserverOrFakeQuantize",
)  # fmt: skip


def test_observers_of_torchao_are_there_by_name() -> None:
    theirs = importlib.import_module("torchao.quantization.pt2e")
    for name in OBSERVERS:
        assert name in compat.__all__
        assert hasattr(compat, name)
        assert hasattr(theirs, name)


@pytest.mark.parametrize("observer", ["MinMaxObserver", "MovingAverageMinMaxObserver"])
def test_a_spec_takes_them(observer: str) -> None:
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(8, 8)).eval()
    act = compat.QuantizationSpec(
        torch.uint8,
        getattr(compat, observer).with_args(quant_min=0, quant_max=127),
        quant_min=0,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
    )
    weight = compat.QuantizationSpec(
        torch.int8,
        compat.PerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    config = compat.QuantizationConfig(act, act, weight, None)
    exported: Any = torch.export.export(model, (x,)).module()
    quantizer = compat.X86InductorQuantizer().set_global(config)
    prepared = compat.prepare_pt2e(exported, quantizer)
    prepared(x)
    converted = compat.convert_pt2e(prepared)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), atol=0.05, rtol=0.05)
    assert any("quantize_per_tensor" in str(node.target) for node in converted.graph.nodes)
