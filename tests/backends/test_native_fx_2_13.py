"""The native backend against torch 2.13's FX graph mode, with the same qparams on both sides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.backends.checks.targets import host
from quantfx.backends.quantized.rows import NativeRow, Outcome
from quantfx.passes.quant.qdq import quantizes, tensor_qparams
from quantfx.passes.quant.spec import QuantSpec
from tests import unchecked
from tests.backends.fx_graph_mode import ENGINE, engine, fx_outputs, qconfig_of
from tests.backends.native_models import model_of
from tests.backends.quantized.test_rows_2_13 import NATIVE_ROWS, label

# Ours folds in float64, FX graph mode in float32: weights and scales differ in the last bits.
FOLDED = ("BatchNorm", "nni.ConvBn", "nni.LinearBn")
FOLDING = ("conv", "linear")
# FX graph mode packs recurrent weights so; ours have a scale for each channel.
ONE_SCALE = QuantSpec(
    torch.int8, -128, 127, symmetric=True, observer="min_max", eps=torch.finfo(torch.float32).eps
)
# PReLU: its default weight qparams are wrong there, and others it does not take.
ROWS = [
    (row, outcome)
    for row, outcome in NATIVE_ROWS
    if outcome.template is not None and "qat." not in row.pattern and row.pattern != "nn.PReLU"
]

REFUSED = "layers whose results nobody limits are refused on CPUs without VNNI"
# One row of each template and form: module, function or method, fused or not.
FIRST = list({(o.template, r.pattern[:2], len(r.fused)): (r, o) for r, o in ROWS}.values())


def ours(model: nn.Module, inputs: tuple[Any, ...], mode: str = "static") -> quantfx.Result:
    """Quantize as FX graph mode does: the same engine, ranges of 7 bits, kept to by nobody."""
    backend = backends.get(
        "native",
        target="any",
        config=mode,
        engine=ENGINE,
        reduce_range=True,
        limits=False,
        observer="min_max",
        weight_observer="min_max",
    ).with_specs(rnn_weight=ONE_SCALE)
    return unchecked.quantize(model, inputs, backend=backend)


def run(result: quantfx.Result, inputs: tuple[Any, ...]) -> Tensor:
    with engine(ENGINE), torch.no_grad():
        value = result.module(*inputs)
    return value[0] if isinstance(value, tuple) else value


def step(result: quantfx.Result) -> float:
    """Return the step of the result; that of the weights is finer."""
    scales = [
        tensor_qparams(node).scale for node in result.quantized.graph.nodes if quantizes(node)
    ]
    return scales[-1] if scales else 0.0


@pytest.mark.parametrize(("row", "outcome"), FIRST, ids=label)
def test_a_row_of_each_template_equals_fx_graph_mode(row: NativeRow, outcome: Outcome) -> None:
    check(row, outcome)


@pytest.mark.sweep
@pytest.mark.parametrize(("row", "outcome"), ROWS, ids=label)
def test_rows_equal_fx_graph_mode(row: NativeRow, outcome: Outcome) -> None:
    check(row, outcome)


def check(row: NativeRow, outcome: Outcome) -> None:
    model, inputs = model_of(row.pattern)
    mode = outcome.mode or "static"
    if mode == "static" and row.group in FOLDING and host().saturates:
        pytest.skip(REFUSED)
    result = ours(model, inputs, mode)
    got = run(result, inputs)
    if row.pattern.strip("(").startswith("torch.conv"):
        with pytest.raises(RuntimeError, match="missing value for argument 'stride'"):
            fx_outputs(model, inputs, qconfig_of(mode, row.pattern))
        return
    expected = fx_outputs(model, inputs, qconfig_of(mode, row.pattern))
    if row.group == "fixed-qparams":
        with torch.no_grad():  # it finds that the qconfig does not fit and leaves the row float
            assert torch.equal(expected, model(*inputs))
    elif row.group in FOLDING and any(name in row.pattern for name in FOLDED):
        bound = step(result) if mode == "static" else 0.004 * float(expected.abs().max())
        assert float((got - expected).abs().max()) <= bound * 1.001
    else:
        assert torch.equal(got, expected)


@pytest.mark.skipif(host().saturates, reason=REFUSED)
def test_a_network_equals_fx_graph_mode() -> None:
    """Layers, sums, products by two tensors and by numbers, norms, pools, shapes."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.norm = nn.BatchNorm2d(8)
            self.up = nn.Conv2d(8, 6, 3, stride=2)
            self.head = nn.Linear(12, 5)
            self.layer_norm = nn.LayerNorm(5)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.conv(x))
            z = F.relu(self.depthwise(y) + y)
            z = self.norm(z * y) + 0.5
            z = F.max_pool2d(z, 2)
            u = self.up(z)
            flat = torch.cat([F.hardswish(u), F.leaky_relu(u)], 1).mean([2, 3])
            logits: Tensor = self.layer_norm(self.head(flat) * -2)
            return logits

    model, x = Net().eval(), torch.randn(4, 3, 12, 12)
    result = ours(model, (x,))
    assert all(site.kernel for site in result.report.sites)
    expected = fx_outputs(model, (x,), qconfig_of("static", ""))
    assert torch.equal(run(result, (x,)), expected)
