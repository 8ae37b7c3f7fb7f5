"""Stored integers against the weights they were made of."""

from __future__ import annotations

import torch
from torch import nn

from quantfx import backends
from quantfx.passes.observe.calibrate import calibrate
from quantfx.tools.fuzz.check_weights import wrong_weights
from tests import unchecked


def test_integers_that_are_a_step_off_are_named() -> None:
    torch.manual_seed(0)
    backend, x = backends.get("x86"), torch.randn(4, 8)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    prepared = backend.prepare(unchecked.capture(model, (x,)))
    calibrate(prepared, [x], progress=False)
    quantized = backend.convert(prepared)
    assert wrong_weights(prepared, quantized) == []
    integers = dict(quantized.named_buffers())["2.weight_s8"]
    integers.add_(1)
    [line] = wrong_weights(prepared, quantized)
    assert line.startswith("2.weight_s8 is off by ")
