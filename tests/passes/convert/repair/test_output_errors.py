"""What rounding adds to outputs: the runs are those of the graphs, the shift is what helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx.backends import Backend
from quantfx.passes.convert.repair import output_errors, rounding_run
from quantfx.passes.convert.repair.correct_bias import CorrectBias
from quantfx.passes.convert.repair.output_errors import OutputErrors, correct_outputs
from quantfx.passes.convert.repair.rounding_run import FloatRun, RoundingRun
from quantfx.passes.graph.remark import Remark
from quantfx.passes.pipeline.record import records_of
from quantfx.tools.measure.metrics import sqnr_db
from tests.passes.convert.repair.networks import backend, images, network, statistics
from tests.unchecked import capture


def prepared(model: nn.Module, example: Tensor, chosen: Backend) -> GraphModule:
    """Calibrated on the example."""
    ready = chosen.prepare(capture(model, (example,)))
    quantfx.calibrate(ready, [example], progress=False)
    return ready


def output(module: GraphModule, run: FloatRun | RoundingRun, x: Tensor) -> Tensor:
    run.start([x], {})
    (last,) = module.graph.find_nodes(op="output")
    with torch.no_grad():
        found: Tensor = run.value(last)[0]
    return found


class Sequence(nn.Module):
    """A convolution of one dimension, a transposed one, and linears of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 3, padding=1)
        self.up = nn.ConvTranspose1d(8, 6, 2, stride=2)
        self.linear = nn.Linear(6, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, steps, 5)``."""
        return self.linear(self.up(self.conv(x).relu()).transpose(1, 2).contiguous())


@pytest.mark.parametrize("config", ["static", "dynamic", "fp16"])
def test_runs_compute_what_the_graphs_do(config: str) -> None:
    torch.manual_seed(3)
    model, x = Sequence().eval(), torch.randn(6, 4, 10)
    chosen = backend().with_config(config)
    ready = prepared(model, x, chosen)
    with torch.no_grad():
        torch.testing.assert_close(
            output(ready, FloatRun(ready), x), model(x), rtol=1e-5, atol=1e-5
        )
        rounded = output(ready, RoundingRun(ready, {}), x)
        assert not torch.equal(rounded, model(x))
        torch.testing.assert_close(rounded, chosen.convert(ready)(x), rtol=1e-5, atol=1e-5)


def test_a_layer_sees_what_was_corrected_before() -> None:
    """With the first layer off by one, and corrected, the second has nothing left to correct."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    ready = prepared(model, images(8), backend())
    first, second = (node for node in ready.graph.nodes if node.name.startswith("conv2d"))
    sizes: list[float] = []

    def choose(by: float) -> Callable[[object, OutputErrors], Tensor]:
        def chosen(node: object, errors: OutputErrors) -> Tensor:
            sizes.append(float(errors.fitted.abs().mean()))
            return torch.full((errors.fitted.shape[1],), by if node is first else 0.0)

        return chosen

    for by in (0.0, 5.0):
        correct_outputs(ready, [(images(8),)], {first: 2, second: 2}, choose(by))
    assert sizes[0] == sizes[2]
    assert sizes[3] > 20 * sizes[1]


def test_the_median_is_taken_where_it_helps() -> None:
    fitted = torch.tensor([[1.0, 0.0], [1.0, 9.0], [0.0, -9.0], [1.0, 0.0], [90.0, 0.0]])
    held = torch.tensor([[1.25, -1.0], [0.75, -1.0]])
    assert OutputErrors(fitted, held).shift().tolist() == [1.0, 0.0]
    assert OutputErrors(fitted, -held).shift().tolist() == [0.0, 0.0]


def test_calls_are_as_many_as_memory_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared(network(), images(4), backend())
    (node,) = (each for each in ready.graph.nodes if each.name == "conv2d")
    rows: list[int] = []

    def choose(_: object, errors: OutputErrors) -> Tensor:
        rows.append(len(errors.fitted) + len(errors.held))
        return torch.zeros(16)

    sample = [(each,) for each in torch.split(images(40), 4)]
    correct_outputs(ready, sample, {node: 2}, choose)
    monkeypatch.setattr(rounding_run, "MOST_BYTES", 1)
    correct_outputs(ready, sample, {node: 2}, choose)
    monkeypatch.setattr(output_errors, "MOST_ROWS", 100)
    correct_outputs(ready, sample, {node: 2}, choose)
    assert rows[0] == 10 * -(-4 * 144 // 5)  # 5: the first step of 2 that divides not
    assert rows[1:] == [4 * 144, -(-4 * 144 // 7)]


@pytest.mark.parametrize("empirical", [True, False])
def test_both_ways_bring_a_network_nearer(empirical: bool) -> None:
    """Layers of one and three dimensions, with a bias and without."""
    torch.manual_seed(1)
    model = Sequence().eval()
    data = [torch.rand(8, 4, 10) for _ in range(8)]
    plain, repairing = backend(), backend(repair=True)
    pipeline = repairing.convert_pipeline.replace("correct-bias", CorrectBias(empirical=empirical))
    held = torch.rand(64, 4, 10)
    found: list[float] = []
    for chosen in (plain, replace(repairing, convert_pipeline=pipeline)):
        result = quantfx.quantize(
            model, (data[0],), backend=chosen, calibration=data, progress=False
        )
        with torch.no_grad():
            found.append(sqnr_db(model(held), result.quantized(held)))
    assert found[1] > found[0] + 0.3


def test_without_a_sample_the_mean_of_inputs_decides() -> None:
    known = statistics()
    less = replace(known, sample=())
    repairing = backend(repair=True)
    pipeline = repairing.convert_pipeline.replace("correct-bias", CorrectBias(empirical=False))
    analytic = replace(repairing, convert_pipeline=pipeline)
    told: list[set[str]] = []
    for each, chosen in ((known, repairing), (less, repairing), (known, analytic)):
        result = quantfx.quantize(
            network(), (images(4),), backend=chosen, statistics=each, progress=False
        )
        (record,) = (r for r in records_of(result.quantized) if r.name == "correct-bias")
        told.append({r.message for r in record.remarks if isinstance(r, Remark)})
    assert told[0] != told[1] == told[2]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(6, 3), (6,)), (nn.Conv1d(6, 3, 1), (6, 5)), (nn.Conv2d(6, 3, 1), (6, 2, 2))],
    ids=str,
)
def test_calls_may_have_no_batch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    data = list(torch.rand(40, *shape))
    model = nn.Sequential(layer).eval()
    result = quantfx.quantize(
        model, (data[0],), backend=backend(repair=True), calibration=data, progress=False
    )
    with torch.no_grad():
        assert sqnr_db(model(data[1]), result.quantized(data[1])) > 30
    (record,) = (r for r in records_of(result.quantized) if r.name == "correct-bias")
    assert len(record.remarks) == 1
