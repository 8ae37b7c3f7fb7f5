"""Both repairs: outputs get nearer, scales stay, each is undone where it would not help."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import quantfx
from quantfx import Result
from quantfx.backends import Backend
from quantfx.passes.convert.repair.correct_bias import CorrectBias
from quantfx.passes.convert.repair.round_weights import RoundWeights
from quantfx.passes.graph.graphs import Site, constant
from quantfx.passes.graph.remark import Remark
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.pipeline.permits import Permits, permitting
from quantfx.passes.pipeline.record import records_of
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value
from quantfx.tools.measure.metrics import sqnr_db
from tests import unchecked
from tests.passes.convert.repair.networks import backend, images, network, statistics
from tests.refusals import refused


def quantized(
    chosen: Backend, known: Statistics | None = None, example: Tensor | None = None
) -> Result:
    inputs = (images(4) if example is None else example,)
    known = known or statistics()
    return unchecked.quantize(network(), inputs, backend=chosen, statistics=known, progress=False)


def with_bias(correct: CorrectBias) -> Backend:
    repairing = backend(repair=True)
    pipeline = repairing.convert_pipeline.replace("correct-bias", correct)
    return replace(repairing, convert_pipeline=pipeline)


def without(*names: str, start: Backend | None = None) -> Backend:
    repairing = start or backend(repair=True)
    pipeline = repairing.convert_pipeline
    for name in names:
        pipeline = pipeline.without(name)
    return replace(repairing, convert_pipeline=pipeline)


def decibels(result: Result) -> float:
    held = images(64, seed=9)
    with torch.no_grad():
        return sqnr_db(network()(held), result.quantized(held))


def remarks(result: Result, name: str) -> list[Remark]:
    (record,) = (each for each in records_of(result.quantized) if each.name == name)
    return [each for each in record.remarks if isinstance(each, Remark)]


def weights(result: Result) -> dict[str, tuple[Tensor, Tensor]]:
    module = result.quantized
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for node in module.graph.find_nodes(op="call_function", target=DEQUANTIZE_PER_CHANNEL):
        integers, scale = (constant(module, each) for each in node.args[:2])
        assert integers is not None
        assert scale is not None
        (reader,) = node.users
        found[reader.name] = integers, scale
    return found


def test_each_repair_brings_the_outputs_nearer() -> None:
    plain = decibels(quantized(backend()))
    alone = without("correct-bias")
    pipeline = alone.convert_pipeline.replace("round-weights", RoundWeights(centered=False))
    rounded = decibels(quantized(replace(alone, convert_pipeline=pipeline)))
    analytic = with_bias(CorrectBias(empirical=False))
    corrected = decibels(quantized(without("round-weights", start=analytic)))
    both = decibels(quantized(analytic))
    assert rounded > plain + 0.5
    assert corrected > plain + 0.5
    assert both > max(rounded, corrected)
    assert both > plain + 3
    assert decibels(quantized(backend(repair=True))) > both + 1


def test_scales_stay_and_integers_differ() -> None:
    before, after = weights(quantized(backend())), weights(quantized(backend(repair=True)))
    assert before.keys() == after.keys()
    for name, (integers, scale) in before.items():
        assert torch.equal(scale, after[name][1]), name
        assert (integers.int() - after[name][0].int()).abs().max() <= 8, name
    assert sum(not torch.equal(each[0], after[name][0]) for name, each in before.items()) >= 3


def test_kernels_compute_what_the_repaired_graph_says() -> None:
    result = quantized(backend(repair=True))
    assert (result.report.planned, result.report.lowered) == (4, 4)
    x = images(8, seed=5)
    with torch.no_grad():
        torch.testing.assert_close(result.module(x), result.quantized(x), atol=0.02, rtol=0.02)


def test_a_layer_without_a_bias_gets_one() -> None:
    for repair in (False, True):
        result = quantized(backend(repair=repair))
        (point,) = (node for node in result.quantized.graph.nodes if node.name == "conv2d_2")
        assert (argument_value(point, "bias") is not None) == repair


def test_what_was_done_is_in_the_records() -> None:
    result = quantized(backend(repair=True))
    told = {each.node: each.message for each in remarks(result, "round-weights")}
    assert told.keys() == {"conv2d", "conv2d_1", "conv2d_2", "linear"}
    assert all(" less on held-out inputs" in e or "nothing gains" in e for e in told.values())
    assert any("channels" in each.message for each in remarks(result, "correct-bias"))


def test_a_repair_that_makes_it_worse_is_undone() -> None:
    """Moments that have nothing to do with the inputs that are held out."""
    known = statistics()
    layers: dict[Site, LayerInputs] = {}
    for site, each in known.layers.items():
        odd = torch.rand(each.gram.shape, generator=torch.Generator().manual_seed(1)) - 0.5
        layers[site] = replace(each, gram=odd @ odd.mT, mean=-0.5 * each.mean)
    result = quantized(backend(repair=True), replace(known, layers=layers))
    assert decibels(result) > decibels(quantized(backend())) - 0.5
    for name, (integers, _) in weights(quantized(backend())).items():
        changed = (weights(result)[name][0] != integers).flatten(1).any(1)
        assert changed.float().mean() < 0.6, name


def test_too_few_samples_are_said() -> None:
    batches = list(torch.split(images(7), 1))
    few = quantfx.collect(network(), (images(1),), batches, backend=backend(), progress=False)
    result = quantized(backend(repair=True), few, images(1))
    told = {each.message for each in remarks(result, "round-weights")}
    assert told == {"round-weights: statistics of fewer than 8 samples cannot judge it"}
    plain = quantized(backend(), few, images(1))
    for name, (integers, _) in weights(plain).items():
        assert torch.equal(integers, weights(result)[name][0])


def test_a_bisection_may_refuse_one_layer() -> None:
    with permitting(Permits()) as asked:
        quantized(backend(repair=True))
    wanted = [each for each in asked.asked if each.by == "round-weights" and each.site == "conv2d"]
    assert len(wanted) == 1
    with permitting(Permits(refused=wanted)):
        result = quantized(backend(repair=True))
    assert "conv2d" not in {each.node for each in remarks(result, "round-weights")}
    assert torch.equal(weights(result)["conv2d"][0], weights(quantized(backend()))["conv2d"][0])


def test_calibration_alone_is_enough() -> None:
    """The repairs collect what they need in the same pass over the data."""
    batches = list(torch.split(images(64), 4))
    result = unchecked.quantize(
        network(), (images(4),), backend=backend(repair=True), calibration=batches, progress=False
    )
    known = quantized(backend(repair=True))
    assert torch.equal(result.quantized(images(2)), known.quantized(images(2)))


def test_smoothed_layers_are_repaired_as_they_are() -> None:
    smoothed = backend(smooth=0.5, repair=True)
    result = quantized(smoothed)
    plain = quantized(backend(smooth=0.5))
    assert decibels(result) > decibels(plain)
    told = {each.node: each.kind for each in remarks(result, "round-weights")}
    assert told["linear"] == "applied"


def test_without_statistics_a_pass_says_what_to_do() -> None:
    repairing = backend(repair=True)
    graph = quantfx.capture(network(), (images(4),))
    prepared = repairing.prepare(graph)
    quantfx.calibrate(prepared, [images(4)], progress=False)
    with refused("no-statistics", site="round-weights", fix="collect"):
        repairing.convert(prepared)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_damping_is_positive(damping: float) -> None:
    with refused("number-range", site="damping"):
        RoundWeights(damping=damping)
    assert RoundWeights(0.2) != RoundWeights()
    assert CorrectBias() == CorrectBias()


def test_who_collects_no_data_says_so_at_once() -> None:
    with refused("no-statistics", site="round-weights", says="training"):
        quantfx.prepare_qat(network().train(), (images(4),), backend=backend(repair=True))
    network().eval()
    with refused("no-statistics", site="round-weights", says=r"torch\.compile"):
        quantfx.auto(network(), backend=backend(repair=True))


def test_who_collects_data_repairs() -> None:
    batches = list(torch.split(images(16), 4))
    found = quantfx.sensitivity(
        network(), (images(4),), batches, backend=backend(repair=True), progress=False
    )
    assert len(found.sites) == 4
    with refused("nothing-wrong"):
        quantfx.bisect(
            network(),
            (images(4),),
            check=quantfx.checks.close_to_float(10),
            batches=batches,
            backend=backend(repair=True),
        )
