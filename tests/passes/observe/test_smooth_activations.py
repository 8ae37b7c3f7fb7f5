from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.backends.backend import Backend
from quantfx.backends.checks import targets
from quantfx.backends.x86 import x86
from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.graphs import attribute, referent
from quantfx.passes.graph.remark import Remark
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observe.observe_channels import ObserveChannels
from quantfx.passes.observe.smooth_activations import MUL, SmoothActivations
from quantfx.passes.observe.smoothing_scale import smoothing_scale
from quantfx.passes.observers.channel import ChannelObserver
from quantfx.passes.observers.observer import Observer
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.report.contract import find_skipped
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.seeded import seeded
from tests.export_cases import Net
from tests.refusals import refused
from tests.unchecked import capture

SIZES = torch.tensor([0.02, 0.1, 1.0, 1.0, 1.0, 2.0, 3.0, 60.0])


def inputs(seed: int, sizes: Tensor = SIZES) -> Tensor:
    return torch.randn(600, 8, generator=torch.Generator().manual_seed(seed)) * sizes


class Block(nn.Module):
    """A transformer's habits: q, k, v read one layer norm, which a residual reads as well."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8, bias=False)
        with torch.no_grad():
            self.norm.weight.mul_(SIZES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        y = y + F.softmax(self.q(y) @ self.k(y).T, dim=-1) @ self.v(y)
        out: Tensor = y + self.down(F.gelu(self.up(y)))
        return out


def smoothed(prepared: Any, backend: Backend) -> Any:
    return backend.convert_pipeline.upto("smooth-activations").run(prepared, backend.context)


def calibrated(model: nn.Module, backend: Backend, x: Tensor) -> Any:
    prepared = backend.prepare(capture(model, (x,)))
    calibrate(prepared, [x, x / 2])
    return prepared


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_the_float_function_is_kept(alpha: float) -> None:
    model, x, backend = seeded(Block).eval(), inputs(0), x86(smooth=alpha)
    done = smoothed(calibrated(model, backend, x), backend)
    assert len(done.graph.find_nodes(op="call_function", target=MUL)) == 3
    with torch.no_grad():
        expected, given = model(x), done(x)
    assert float((given - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("target_name", [None, "avx2"])
def test_channels_of_uneven_size_lose_less(target_name: str | None) -> None:
    linear = seeded(lambda: nn.Linear(8, 16))
    model = nn.Sequential(linear).eval()
    target = None if target_name is None else targets.get(target_name)
    x, other = inputs(0), inputs(1)
    with torch.no_grad():  # weights as training leaves them: what is large counts for less
        linear.weight.div_(SIZES)
        reference = model(other)
        decibels = [
            sqnr_db(reference, backend.convert(calibrated(model, backend, x))(other))
            for backend in (x86(target), x86(target, smooth=0.8))
        ]
    assert decibels[1] > decibels[0] + 6


def test_the_calibrated_module_is_left_as_it_was() -> None:
    model, x, backend = seeded(Block).eval(), inputs(0), x86(smooth=0.8)
    prepared = calibrated(model, backend, x)
    first, second = backend.convert(prepared), backend.convert(prepared)
    with torch.no_grad():
        torch.testing.assert_close(prepared(x), model(x))
        assert torch.equal(first(x), second(x))
    assert sum(isinstance(each, ChannelObserver) for each in prepared.modules()) == 3
    assert not [each for each in second.modules() if isinstance(each, ChannelObserver)]


def test_products_are_no_operators_that_stay_float() -> None:
    model, x, backend = seeded(Block).eval(), inputs(0), x86(smooth=0.8)
    quantized = backend.convert(calibrated(model, backend, x))
    assert not [
        remark for remark in find_skipped(quantized, backend.recipe) if remark.op == str(MUL)
    ]


def test_weights_of_linears_that_share_an_input_share_the_scale() -> None:
    model, x, backend = seeded(Block).eval(), inputs(0), x86(smooth=0.8)
    done = smoothed(calibrated(model, backend, x), backend)
    ratios = [getattr(done, n).weight / getattr(model, n).weight for n in ("q", "k", "v")]
    for ratio in ratios:
        torch.testing.assert_close(ratio, ratios[0][:1].expand_as(ratio))


def two_linears(body: Callable[..., Any]) -> nn.Module:
    torch.manual_seed(0)
    return Net(body, nn.Linear(8, 8), nn.Linear(8, 8)).eval()


NOT_OBSERVED: dict[str, Callable[..., Any]] = {
    "product of tensors reads it": lambda f, g, x: f(x) + x * x.tanh(),
    "in both branches": lambda f, g, x: torch.cond(x.sum() > 0, f.forward, g.forward, (x,)),
}


@pytest.mark.parametrize("name", NOT_OBSERVED)
def test_tensors_that_others_share_are_left(name: str) -> None:
    model = two_linears(NOT_OBSERVED[name])
    prepared = x86(smooth=0.8).prepare(capture(model, (inputs(0),)))
    assert not [each for each in prepared.modules() if isinstance(each, ChannelObserver)]


def test_weight_with_another_reader_is_left_and_named() -> None:
    model = two_linears(lambda f, g, x: f(f(x).relu()))
    x, backend = inputs(0), x86(smooth=0.8)
    done = smoothed(calibrated(model, backend, x), backend)
    remarks = [remark.message for remark in remarks_of(done, Remark)]
    assert [message for message in remarks if "another operator also reads the weight" in message]
    with torch.no_grad():
        torch.testing.assert_close(done(x), model(x))


def test_few_rows_are_not_trusted() -> None:
    model, x, backend = seeded(Block).eval(), inputs(0)[:100], x86(smooth=0.8)
    done = smoothed(calibrated(model, backend, x), backend)
    assert not done.graph.find_nodes(op="call_function", target=MUL)
    remarks = [remark.message for remark in remarks_of(done, Remark)]
    reason = "not smoothed for linear, linear_1, linear_2: 200 values per channel, of 1024 needed"
    assert reason in remarks


def test_weights_are_searched_anew() -> None:
    """Scales of the weights as they were would clip what grew."""
    model, x, backend = seeded(Block).eval(), inputs(0), x86(smooth=1.0)
    done = smoothed(calibrated(model, backend, x), backend)
    for node in done.graph.find_nodes(op="call_module"):
        observer = referent(done, node)
        assert isinstance(observer, Observer)
        constant = node.all_input_nodes[0]
        if constant.op == "get_attr":
            weight = attribute(done, constant.target)
            assert isinstance(weight, Tensor)
            fresh = type(observer)(observer.spec)
            fresh.observe(weight)
            assert torch.equal(observer.calculate_qparams().scale, fresh.calculate_qparams().scale)


def test_dynamic_linears_have_nothing_to_record() -> None:
    backend = x86(smooth=0.8).with_config("dynamic")
    prepared = backend.prepare(capture(seeded(Block).eval(), (inputs(0),)))
    assert not [each for each in prepared.modules() if isinstance(each, ChannelObserver)]


def test_silent_channels_do_not_explode() -> None:
    sizes = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 8.0])
    linear = seeded(lambda: nn.Linear(8, 16))
    model = nn.Sequential(linear).eval()
    backend = x86(smooth=1.0)
    quantized = backend.convert(calibrated(model, backend, inputs(0, sizes)))
    with torch.no_grad():
        assert bool(quantized(inputs(1)).isfinite().all())
    rms = linear.weight.detach().double().square().mean(0).sqrt()
    scale = smoothing_scale(sizes.double(), rms, 1.0)
    assert float(scale.max() / scale.min()) <= 2**7 * 8
    torch.testing.assert_close(scale.log().mean(), torch.zeros((), dtype=torch.float64))


def test_options_are_checked_and_printed() -> None:
    with refused("number-range", PipelineError, site="alpha", says="alpha=2"):
        SmoothActivations(alpha=2)
    with refused("number-range", PipelineError, site="rows", says="rows=0"):
        SmoothActivations(rows=0)
    with refused("unknown-name", PipelineError, site="histogramm"):
        ObserveChannels(search="histogramm")  # type: ignore[arg-type]
    pipeline = Pipeline((ObserveChannels("mse"), SmoothActivations(0.5)))
    assert Pipeline.parse(str(pipeline)).passes == pipeline.passes
