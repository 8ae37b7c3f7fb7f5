"""Repairs without being asked: by a sample that calibration keeps, where it is large enough."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Result
from quantfx.backends.x86 import REPAIRED_FROM, x86
from quantfx.passes.convert.repair.round_weights import RoundWeights
from quantfx.passes.graph.remark import ModelRemark, Remark
from quantfx.passes.observers.statistics.sample import Sample, first_rows, sample_of
from quantfx.passes.pipeline.record import records_of
from quantfx.tools.measure.metrics import sqnr_db
from tests import unchecked
from tests.passes.convert.repair.networks import backend, images, network, statistics
from tests.refusals import refused

BATCHES = list(torch.split(images(64), 4))
FEW = BATCHES[: REPAIRED_FROM // 4 - 1]
DEFAULT = backend(repair=None)


def quantized(batches: list[Tensor], repair: bool | None = None) -> Result:
    chosen = backend(repair=repair)
    return unchecked.quantize(
        network(), (images(4),), backend=chosen, calibration=batches, progress=False
    )


def same(one: Result, other: Result) -> bool:
    return torch.equal(one.quantized(images(2)), other.quantized(images(2)))


def told(module: nn.Module, name: str) -> list[str]:
    assert isinstance(module, torch.fx.GraphModule)
    (record,) = (each for each in records_of(module) if each.name == name)
    return [each.reason for each in record.remarks if isinstance(each, ModelRemark)]


def test_it_is_the_default_and_brings_the_outputs_nearer() -> None:
    assert x86() == x86(repair=None)
    held = images(64, seed=9)
    exact = network()(held).detach()
    plain, repaired = quantized(BATCHES, False), quantized(BATCHES)
    gained = sqnr_db(exact, repaired.quantized(held)) - sqnr_db(exact, plain.quantized(held))
    assert gained > 3
    (record,) = (each for each in records_of(repaired.quantized) if each.name == "round-weights")
    kinds = {each.node for each in record.remarks if isinstance(each, Remark)}
    assert kinds == {"conv2d", "conv2d_1", "conv2d_2", "linear"}


def test_less_data_changes_nothing_and_says_so_once() -> None:
    result = quantized(FEW)
    assert same(result, quantized(FEW, False))
    for name in ("round-weights", "correct-bias"):
        (reason,) = told(result.quantized, name)
        assert "kept 28 samples of its inputs, of 32 needed" in reason
    (note,) = result.report.notes
    assert note.startswith("round-weights, correct-bias: nothing was repaired: ")
    assert "nothing was repaired" in result.report.text(full=True)
    assert result.report.from_dict(result.report.to_dict()) == result.report


def test_the_same_batch_counts_once() -> None:
    again = [images(4)] * 16
    assert same(quantized(again), quantized(again, False))


def test_data_and_its_statistics_repair_alike() -> None:
    """Statistics of all 64 samples: repairs without being asked go by 32 of them."""
    known = unchecked.quantize(
        network(), (images(4),), backend=DEFAULT, statistics=statistics(), progress=False
    )
    assert same(known, quantized(BATCHES))
    assert not same(known, quantized(BATCHES, True))
    without = quantfx.collect(
        network(), (images(4),), BATCHES, backend=DEFAULT, layers=False, progress=False
    )
    plain = unchecked.quantize(
        network(), (images(4),), backend=DEFAULT, statistics=without, progress=False
    )
    assert same(plain, quantized(BATCHES, False))


def test_single_steps_do_what_quantize_does_and_nothing_is_kept() -> None:
    graph = quantfx.capture(network(), (images(4),))
    prepared = DEFAULT.prepare(graph)
    quantfx.calibrate(prepared, BATCHES[:4], progress=False)
    quantfx.calibrate(prepared, BATCHES[4:], progress=False)
    assert len(sample_of(prepared)) == REPAIRED_FROM // 4
    converted = DEFAULT.convert(prepared)
    assert torch.equal(converted(images(2)), quantized(BATCHES).quantized(images(2)))
    assert sample_of(converted) == ()
    assert not [key for key in converted.meta if "sample" in key]
    plain = backend(repair=False).prepare(graph)
    quantfx.calibrate(plain, BATCHES, progress=False)
    assert sample_of(plain) == ()


def test_the_sample_is_a_copy() -> None:
    prepared = DEFAULT.prepare(quantfx.capture(network(), (images(4),)))
    batch = images(4)
    quantfx.calibrate(prepared, [batch], progress=False)
    batch.zero_()
    assert torch.equal(sample_of(prepared)[0][0], images(4))


def test_who_keeps_no_data_repairs_nothing() -> None:
    """Training and torch.compile take the backend as it is; only what was asked for is refused."""
    model = copy.deepcopy(network())
    trained = quantfx.prepare_qat(
        model.train(), (images(4),), backend=DEFAULT, calibration=BATCHES, progress=False
    )
    trained.eval()
    result = quantfx.convert_qat(trained)
    assert "kept 0 samples" in told(result.quantized, "correct-bias")[0]
    quantfx.auto(network(), backend=DEFAULT)


def test_smoothing_comes_first() -> None:
    smoothed, plain = backend(smooth=0.5, repair=None), backend(smooth=0.5)
    held = images(64, seed=9)
    exact = network()(held).detach()
    found = [
        unchecked.quantize(
            network(), (images(4),), backend=each, calibration=BATCHES, progress=False
        )
        for each in (plain, smoothed)
    ]
    before, after = (sqnr_db(exact, each.quantized(held)) for each in found)
    assert after > before + 1


class Choosing(nn.Module):
    """Has graphs nested in its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return one of two layers' outputs."""
        return torch.cond(x.sum() > 0, lambda y: self.layer(y), lambda y: y - 1, (self.layer(x),))


def test_nested_graphs_are_left_alone() -> None:
    x = torch.randn(40, 4)
    model = Choosing().eval()
    result = unchecked.quantize(
        model, (x,), backend=DEFAULT, calibration=[x, -x, x + 1], strict=False, progress=False
    )
    assert told(result.quantized, "round-weights") == [
        "nothing was repaired: a graph is nested in another"
    ]


def test_a_sample_ends_with_enough_rows() -> None:
    calls = [(torch.full((3, 2), float(number)), "text") for number in range(5)]
    sample = Sample(7)
    for number in (4, 0, 3, 0, 1, 2):
        sample.add(str(number), calls[number])
    assert [float(call[0][0, 0]) for call in sample.calls] == [0.0, 1.0, 2.0]
    assert first_rows(calls, 7) == tuple(calls[:3])
    assert first_rows([(2.0,), (torch.tensor(1.0),), (3.0,)], 2)[1:] == ((torch.tensor(1.0),),)


def test_how_many_samples_is_no_negative_number() -> None:
    with refused("number-range", site="from_samples"):
        RoundWeights(from_samples=-1)


def test_the_text_of_the_pipeline_says_from_how_many() -> None:
    text = str(DEFAULT.convert_pipeline)
    assert text.startswith("round-weights{from_samples=32}, correct-bias{from_samples=32}, ")
    assert quantfx.Pipeline.parse(text) == DEFAULT.convert_pipeline


@pytest.mark.parametrize("chunk", [2, 40])
def test_outputs_may_be_empty(chunk: int) -> None:
    """A layer that some calls give nothing to compute."""
    data = [torch.rand(40, 0, 6) for _ in range(2)] + list(torch.split(torch.rand(40, 3, 6), chunk))
    rows, size = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    model = nn.Sequential(nn.Linear(6, 3)).eval()
    result = unchecked.quantize(
        model,
        (data[2],),
        backend=DEFAULT,
        calibration=data,
        dynamic_shapes=({0: rows, 1: size},),
        progress=False,
    )
    assert result.report.planned == 1
