"""An observer filled from statistics is the one that calibration leaves, to the bit."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx.backends import Backend
from quantfx.backends.x86 import pattern_set, x86
from quantfx.collect_statistics import collect_graph
from quantfx.passes.config.config import Config
from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.remark import Remark
from quantfx.passes.observe.statistics.fill_observers import fill_observers
from quantfx.passes.observers.branch import BranchObserver
from quantfx.passes.observers.histogram import HistogramObserver
from quantfx.passes.observers.including import MustInclude
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.quant.spec import QuantSpec
from quantfx.tools.models.seeded import seeded
from tests.export_cases import CASES
from tests.passes.observers.distributions import bins_apart
from tests.refusals import refused
from tests.unchecked import capture


class Net(nn.Module):
    """A cat behind pools (a sharing group), a residual sum, a product of tensors, linears."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.right = nn.Conv2d(3, 4, 1)
        self.join, self.again = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.max_pool2d(self.left(x), 2), F.avg_pool2d(self.right(x), 2)
        y = self.join(torch.cat([left, right], 1))
        y = torch.relu(self.again(y) + y)
        y = self.norm(y.flatten(2).transpose(1, 2))
        scores: Tensor = self.q(y) @ self.k(y).transpose(1, 2)
        return scores


BATCHES = [
    torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step)) * (1 + step % 3)
    for step in range(5)
]


@functools.cache
def graph() -> GraphModule:
    return capture(seeded(Net), (BATCHES[0],))


@functools.cache
def statistics() -> Statistics:
    return collect_graph(graph(), x86(), BATCHES, progress=False)


def pair(
    backend: Backend, of: GraphModule, batches: list[Any], given: Statistics
) -> tuple[GraphModule, GraphModule]:
    """Return a calibrated graph and a filled one."""
    calibrated, filled = backend.prepare(of), backend.prepare(of)
    quantfx.calibrate(calibrated, batches, progress=False)
    for _ in range(2):  # it replaces what they hold
        fill_observers(filled, given)
    return calibrated, filled


def assert_equal_state(calibrated: GraphModule, filled: GraphModule) -> None:
    observed = [each for each in calibrated.modules() if isinstance(each, Observer)]
    assert observed
    for each, other in zip(calibrated.modules(), filled.modules(), strict=True):
        if isinstance(each, Observer) and isinstance(other, Observer):
            assert each.observed == other.observed, each.label
    ours, theirs = dict(filled.named_buffers()), dict(calibrated.named_buffers())
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


OPTIONS: dict[str, dict[str, Any]] = {
    "histogram": {"observer": "histogram"},
    "mse": {"observer": "mse"},
    "min_max": {"observer": "min_max"},
    "moving_average": {"observer": "moving_average"},
    "smooth": {"smooth": 0.8},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_state_is_that_of_calibration(options: dict[str, Any]) -> None:
    backend = x86(**options)
    calibrated, filled = pair(backend, graph(), BATCHES, statistics())
    assert_equal_state(calibrated, filled)
    assert not list(remarks_of(filled, Remark, "fill-observers"))
    if "smooth" in options:
        results = [backend.convert(each)(BATCHES[0]) for each in (calibrated, filled)]
        assert torch.equal(*results)


def test_the_net_has_a_group_a_residual_and_channels() -> None:
    found = statistics()
    assert {len(group) for group in found.groups} >= {5}
    assert any(each.channels is not None for each in found.tensors.values())
    assert all(len(each.extremes) == len(BATCHES) for each in found.tensors.values())
    assert len(found.layers) == 6
    q, k = (found.layers[Site("", name)] for name in ("linear", "linear_1"))
    assert q is k, "they read one tensor"


def test_what_is_quantized_on_request_was_recorded() -> None:
    backend = x86().with_config(Config().op("matmul", "static"))
    calibrated, filled = pair(backend, graph(), BATCHES, statistics())
    assert_equal_state(calibrated, filled)
    by_default, asked = (
        sum(isinstance(each, HistogramObserver | Observer) for each in module.modules())
        for module in (x86().prepare(graph()), filled)
    )
    assert asked > by_default


class Attention(nn.Module):
    """Heads that attend to one another."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(-1, (3, 2, 4)).transpose(1, 3).unbind(2)
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2)
        result: Tensor = self.out(attended.flatten(-2))
        return result


def test_attention_that_is_asked_for_was_recorded() -> None:
    asked = Config(None).op("linear", "static").op("scaled_dot_product_attention", "static")
    backend = x86(patterns=pattern_set(plans=True)).with_config(asked)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    of, batches = capture(seeded(Attention), (x,)), [x, 2 * x]
    calibrated, filled = pair(
        backend, of, batches, collect_graph(of, backend, batches, progress=False)
    )
    assert_equal_state(calibrated, filled)
    without = collect_graph(of, backend.with_config("static"), batches, progress=False)
    with refused("not-recorded", fix="collect with this backend, its config included"):
        fill_observers(filled, without)


def test_an_observer_that_must_include_a_value() -> None:
    spec = dict(x86().recipe.specs)["act"]
    assert isinstance(spec, QuantSpec)
    backend = x86().with_specs(act=replace(spec, observer=MustInclude(100.0)))
    calibrated, filled = pair(backend, graph(), BATCHES, statistics())
    assert_equal_state(calibrated, filled)
    assert any((buffer == 100.0).all() for buffer in filled.buffers())


@pytest.mark.parametrize("observer", ["min_max", "moving_average", "histogram"])
def test_another_group_is_merged_of_its_members(observer: Any) -> None:
    """With the cat left float, each pool shares with what it reads alone."""
    backend = x86(observer=observer).with_config(Config().call("cat", None))
    calibrated, filled = pair(backend, graph(), BATCHES, statistics())
    told = [r.message for r in remarks_of(filled, Remark, "fill-observers")]
    assert told
    assert all("merged from" in each for each in told)
    if observer == "histogram":
        for (name, ours), theirs in zip(filled.named_buffers(), calibrated.buffers(), strict=True):
            if name.endswith("histogram"):
                assert bins_apart(ours, theirs) <= 1
            else:
                assert torch.equal(ours, theirs), name
    else:
        assert_equal_state(calibrated, filled)


@functools.cache
def branching() -> GraphModule:
    case = CASES["cond"]
    return capture(case.make(), case.inputs)


@pytest.mark.parametrize("both", [False, True], ids=["one branch", "both"])
def test_branches(both: bool) -> None:
    x = CASES["cond"].inputs[0]
    batches = [x.abs(), -x.abs()] if both else [x.abs()]
    captured, backend = branching(), x86()
    found = collect_graph(captured, backend, batches, progress=False)
    calibrated, filled = pair(backend, captured, batches, found)
    assert_equal_state(calibrated, filled)
    ran = {each.ran for each in filled.modules() if isinstance(each, BranchObserver)}
    assert ran == ({True} if both else {True, False})
    if both:
        backend.convert(filled)


def test_a_tensor_that_was_not_recorded_is_named() -> None:
    less = {site: each for site, each in statistics().tensors.items() if site.node != "x"}
    with refused("not-recorded", CalibrationError, site="x", fix="calibration="):
        fill_observers(x86().prepare(graph()), replace(statistics(), tensors=less))


class Counting(HistogramObserver):
    """An observer of a user's."""

    def observe(self, x: Tensor) -> None:
        super().observe(x.abs())


@pytest.mark.parametrize("kind", [Counting, functools.partial(HistogramObserver, bins=128)])
def test_observers_that_record_something_else_are_refused(kind: Any) -> None:
    spec = dict(x86().recipe.specs)["act"]
    assert isinstance(spec, QuantSpec)
    prepared = x86().with_specs(act=replace(spec, observer=kind)).prepare(graph())
    with refused("not-recorded", CalibrationError, says="Observer|Counting"):
        fill_observers(prepared, statistics())


def test_a_graph_without_observers_is_refused() -> None:
    with refused("not-prepared", CalibrationError):
        fill_observers(graph(), statistics())
