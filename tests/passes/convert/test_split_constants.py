"""Readers of one weight get copies; everything computed stays the same."""

from __future__ import annotations

import torch
from torch import nn

from quantfx.passes.convert.split_constants import SplitConstants
from quantfx.passes.pipeline.pipeline import Pipeline
from tests import unchecked
from tests.export_cases import ROWS, Net


def test_each_call_of_a_layer_has_integers_of_its_own() -> None:
    torch.manual_seed(0)
    model = Net(lambda f, g, x: f(f(g(x))), nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    module = unchecked.quantize(model, (ROWS,), calibration=[ROWS], progress=False).quantized
    split = Pipeline((SplitConstants(),)).run(module)
    integers = [value.dtype for value in split.state_dict().values()].count(torch.int8)
    assert integers == 3
    assert [value.dtype for value in module.state_dict().values()].count(torch.int8) == 2
    assert torch.equal(split(ROWS), module(ROWS))
