"""Half-precision weights are given back their whole cast for Inductor's pattern."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quantfx
from quantfx.backends.x86 import x86
from quantfx.passes.convert.widen_casts import WidenCasts
from quantfx.passes.errors import SpecError
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.qdq import CAST
from tests import unchecked

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def test_the_weight_is_wide_and_the_result_the_same() -> None:
    torch.manual_seed(0)
    backend = x86().with_config("fp16")
    graph = unchecked.capture(
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), (X,)
    )
    module = backend.convert(backend.prepare(graph))
    assert sorted(t.dtype.itemsize for t in module.state_dict().values()) == [2, 2, 4, 4]
    widened = Pipeline((WidenCasts(),)).run(module)
    assert {t.dtype for t in widened.state_dict().values()} == {torch.float32}
    assert len(widened.graph.find_nodes(op="call_function", target=CAST)) == 4
    assert torch.equal(widened(X), module(X))


def test_a_weight_beyond_half_precision_is_refused_by_name() -> None:
    layer = nn.Linear(8, 4)
    with torch.no_grad():
        layer.weight[0, 0] = 70000.0
    model = nn.Sequential(layer).eval()
    with pytest.raises(SpecError, match=r"weight '0.weight' has values beyond \+-65504"):
        quantfx.quantize(model, (X,), config="fp16")
