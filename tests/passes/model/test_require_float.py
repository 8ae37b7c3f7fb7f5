from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization as tq

import quantfx
from quantfx.passes.errors import CaptureError
from quantfx.passes.graph.remark import Remark
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.train.adopt_fake_quantize import DROPPED
from tests.refusals import refused
from tests.unchecked import quantize

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Eager(nn.Module):
    """A model as eager mode wants it, with stubs and sums that are modules."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.second, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.sum = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: Tensor) -> Any:
        x = self.second(self.relu(self.norm(self.conv(self.quant(x)))))
        return self.dequant(self.head(self.sum.add(x, x).mean((2, 3))))


def prepared(qconfig: Any, *, training: bool = False) -> Any:
    """What eager mode makes of the model, having run it."""
    prepare: Any = tq.prepare_qat if training else tq.prepare
    model: Any = Eager().train(training)
    model.qconfig = qconfig
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = prepare(model)
        model(X)
    return model.eval()


def qconfig(kind: str) -> Any:
    make: Any = getattr(tq, f"get_default_{kind}")
    return make("x86")


def test_stubs_and_functional_modules_are_no_obstacle() -> None:
    result = quantize(Eager().eval(), (X,), calibration=[X])
    assert {row.kind: row.lowered for row in result.report.rows} == {"conv2d": 2, "linear": 1}


@pytest.mark.parametrize("backend", ["x86", "native"])
@pytest.mark.parametrize("observing", [True, False])
def test_a_model_trained_by_eager_mode_is_quantized(backend: str, observing: bool) -> None:
    model = prepared(qconfig("qat_qconfig"), training=True)
    if not observing:
        model.apply(tq.disable_observer)
    result = quantize(model, (X,), calibration=[X], backend=backend)
    lowered = {row.kind: row.lowered for row in result.report.rows}
    assert lowered["conv2d"] == 2
    assert lowered["linear"] == 1
    assert not [node for node in result.quantized.graph.nodes if "fake" in str(node.target)]
    told = [each.message for each in remarks_of(result.quantized, Remark)]
    assert told.count(DROPPED) >= 4  # what the layers read and return
    with torch.no_grad():
        expected, given = model(X), result.module(X)
    assert (given - expected).abs().max() < 0.1 * expected.abs().max()


def test_observers_are_refused() -> None:
    with refused(
        "not-float",
        CaptureError,
        site="quant.activation_post_process",
        fix="torch.ao",
        says="HistogramObserver",
    ):
        quantfx.quantize(prepared(qconfig("qconfig")), (X,))


def test_int8_layers_are_refused() -> None:
    convert: Any = tq.convert
    with refused("not-float", CaptureError, site="quant"):
        quantfx.quantize(convert(prepared(qconfig("qconfig"))).eval(), (X,))


def test_fake_quantizes_that_look_at_tensors_are_refused() -> None:
    with_args: Any = tq.FakeQuantize.with_args
    activation = with_args(observer=tq.MovingAverageMinMaxObserver)
    weight = with_args(
        observer=tq.MovingAverageMinMaxObserver,
        dtype=torch.qint8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_symmetric,
    )
    make: Any = tq.QConfig
    model = prepared(make(activation=activation, weight=weight), training=True)
    with refused(
        "not-float", CaptureError, site="quant.activation_post_process", fix="FakeQuantize"
    ):
        quantfx.quantize(model, (X,))
