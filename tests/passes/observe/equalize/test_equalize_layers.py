"""What is equalized computes the same, and is undone where eight bits gain nothing by it."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx import Pipeline
from quantfx.passes.errors import CalibrationError, PipelineError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.remark import Remark
from quantfx.passes.observe.equalize.equalize_layers import EqualizeLayers
from quantfx.passes.observe.equalize.record_pairs import RecordPairs
from quantfx.passes.pipeline.permits import Permit, Permits, permitting
from quantfx.passes.pipeline.record import remarks_of
from tests import unchecked
from tests.passes.observe.equalize.pair_models import (
    IMAGE,
    OBSTACLES,
    PAIRS,
    built,
    conv,
    data,
    images,
)
from tests.refusals import refused


def equalized(model: nn.Module, x: Tensor, alpha: float = 0.5) -> GraphModule:
    recorded = Pipeline((RecordPairs(),)).run(unchecked.capture(model, (x,)))
    quantfx.calibrate(recorded, [x], progress=False)
    return Pipeline((EqualizeLayers(alpha, rows=8),)).run(recorded)


def remarks(graph: GraphModule, kind: str) -> list[str]:
    return [each.message for each in remarks_of(graph, Remark) if each.kind == kind]


def largest_error(graph: GraphModule, model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        exact = model(x)
        return float((graph(x) - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("name", PAIRS)
def test_the_function_stays(name: str) -> None:
    make, shape = PAIRS[name]
    model = make()
    before = copy.deepcopy(model.state_dict())
    graph = equalized(model, data(shape))
    (told,) = remarks(graph, "applied")
    assert re.fullmatch(r".+ -> .+: outputs err by \d+\.\d dB less on held-out inputs", told)
    assert largest_error(graph, model, data(shape, seed=1)) < 1e-5
    assert not list(graph.children()) or not graph.graph.find_nodes(op="call_module")
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    stored = dict(graph.state_dict())
    assert any(not torch.equal(stored[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", OBSTACLES)
def test_an_obstacle_is_told(name: str) -> None:
    make, shape, reason = OBSTACLES[name]
    model = make()
    graph = equalized(model, data(shape))
    assert not remarks(graph, "applied")
    missed = remarks(graph, "missed")
    assert all(each.startswith("not equalized: ") for each in missed)
    assert any(re.search(reason, each) for each in missed), missed
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in graph.state_dict().items())


def test_half_precision_is_left_alone() -> None:
    graph = equalized(images().bfloat16(), data(IMAGE).bfloat16())
    assert not remarks(graph, "applied")
    assert "the weight of conv2d is torch.bfloat16" in remarks(graph, "missed")[0]


def test_float64_is_not() -> None:
    model = images().double()
    graph = equalized(model, data(IMAGE).double())
    assert remarks(graph, "applied")
    assert largest_error(graph, model, data(IMAGE, seed=1).double()) < 1e-13


def test_sizes_are_even_afterwards() -> None:
    model, x = images(nn.Identity()), data(IMAGE)
    graph = equalized(model, x, alpha=1.0)
    with torch.no_grad():
        before = model.get_submodule("first")(x).pow(4).mean((0, 2, 3)).pow(0.25)
        seen = _output_of(graph, "conv2d", x).pow(4).mean((0, 2, 3)).pow(0.25)
    assert float(before.max() / before.min()) > 20
    assert float(seen.max() / seen.min()) < 1.3  # a quarter of the rows is held out


def _output_of(graph: GraphModule, name: str, x: Tensor) -> Tensor:
    (node,) = (each for each in graph.graph.nodes if each.name == name)
    found: list[Tensor] = []

    class Tap(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            result = super().run_node(n)
            if n is node:
                found.append(result)
            return result

    Tap(graph).run(x)
    return found[0]


def test_what_errs_more_on_held_out_rows_is_undone() -> None:
    """Rows 3, 7, ... hold what the others do not: their quiet channel is loud."""
    model = images(nn.Identity(), first=lambda: conv(3, 3, 3), second=lambda: conv(4, 3))
    x = data(IMAGE)
    x[3::4, 0] *= 3000
    graph = equalized(model, x)
    assert not remarks(graph, "applied")
    assert "outputs err no less on held-out inputs" in remarks(graph, "missed")[-1]
    stored = graph.state_dict()
    assert all(torch.equal(stored[key], value) for key, value in model.state_dict().items())


def test_few_rows_and_zeros_judge_nothing() -> None:
    assert (
        "7 rows of data, of 8 needed to judge it"
        in remarks(equalized(images(), data((7, 3, 8, 8))), "missed")[-1]
    )
    zeros = equalized(images(lambda x: torch.relu(x) * 0), data(IMAGE))
    assert not remarks(zeros, "applied")
    silent = built(lambda: images(first=lambda: conv()))
    for parameter in silent.get_submodule("first").parameters():
        parameter.data.zero_()
    assert "the data gives only zeros" in remarks(equalized(silent, data(IMAGE)), "missed")[-1]


def test_few_values_of_a_channel_choose_nothing() -> None:
    graph = quantfx.equalize(images(), data(IMAGE), [data(IMAGE)], progress=False)
    assert "768 values per channel, of 1024 needed" in remarks(graph, "missed")[-1]
    graph = quantfx.equalize(images(), data(IMAGE), [data(IMAGE)], rows=768, progress=False)
    assert remarks(graph, "applied")


def test_what_is_not_finite_is_refused() -> None:
    x = data(IMAGE)
    graph = Pipeline((RecordPairs(),)).run(unchecked.capture(images(), (x,)))
    for parameter in graph.parameters():
        parameter.data.mul_(torch.inf)
    with refused("not-finite", CalibrationError):
        quantfx.calibrate(graph, [x], progress=False)


def test_rows_count_across_batches() -> None:
    model, x = images(), data(IMAGE)
    recorded = Pipeline((RecordPairs(),)).run(quantfx.capture(model, (x,)))
    quantfx.calibrate(recorded, list(torch.split(x, 1)), progress=False)
    graph = Pipeline((EqualizeLayers(rows=8),)).run(recorded)
    other = equalized(model, x).state_dict()
    for key, value in graph.state_dict().items():
        torch.testing.assert_close(value, other[key])


def test_a_bisection_may_refuse() -> None:
    with permitting(Permits(refused=[Permit("equalize-layers", "", "relu")])) as permits:
        graph = equalized(images(), data(IMAGE))
    assert not remarks(graph, "applied")
    assert Permit("equalize-layers", "", str(Site("", "relu"))) in permits.asked


def test_a_graph_that_trains_is_left_alone() -> None:
    graph = quantfx.capture(images().train(), (data(IMAGE),), training=True)
    recorded = Pipeline((RecordPairs(),)).run(graph)
    assert str(recorded.graph) == str(graph.graph)


def test_options_are_checked_and_printed() -> None:
    with refused("number-range", PipelineError, site="alpha", says="alpha=-1"):
        EqualizeLayers(alpha=-1)
    with refused("number-range", PipelineError, site="rows", says="rows=0"):
        EqualizeLayers(rows=0)
    pipeline = Pipeline((RecordPairs(), EqualizeLayers(0.25, rows=64)))
    assert Pipeline.parse(str(pipeline)).passes == pipeline.passes
