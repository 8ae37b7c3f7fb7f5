"""Whole random regions against their q/dq graphs, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx import GraphModule, Node

from quantfx.backends.direct.family import Direct
from quantfx.backends.direct.form_regions import FormRegions
from quantfx.backends.direct.plans import new_store, translate
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.runtime.arena import separate
from quantfx.backends.direct.runtime.plan import Plan
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.passes.pipeline.base import Context
from tests.backends.direct.qdq_cases import A, Case, Draw, add_weight, make_graph, round_trip
from tests.backends.direct.random_graphs import random_graph


class _Known(fx.Interpreter):
    """Notes the value of every node, as captures do."""

    def run_node(self, n: Node) -> Any:
        n.meta["val"] = super().run_node(n)
        return n.meta["val"]


class _StepByStep(fx.Interpreter):
    """Compares each value that a plan yields with what the graph makes of the plan's own values.

    So a step's rounding is compared, and not that of all before it.
    """

    def __init__(self, region: Region, values: Mapping[str, Tensor]) -> None:
        super().__init__(region.graph)
        self.values = values
        self.compared = 0

    def run_node(self, n: Node) -> Any:
        expected = super().run_node(n)
        found = self.values.get(n.name)
        # Views of integers are float in the graph, and bytes in the plan.
        if n.op != "call_function" or found is None or found.dtype != expected.dtype:
            return expected
        assert found.shape == expected.shape
        self.compared += 1
        assert_close(n, found, expected)
        return found


def assert_close(node: Node, found: Tensor, expected: Tensor) -> None:
    if expected.is_floating_point():
        largest = float(expected.abs().max()) + 1e-3
        assert float((found - expected).abs().max()) <= 2e-5 * largest, node.name
    else:
        assert int((found.int() - expected.int()).abs().max()) <= 1, node.name


class _Regions(fx.Interpreter):
    """Checks each region with the inputs that it gets, and goes on with what its graph yields."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.regions = self.compared = 0

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        region = self.fetch_attr(target)
        assert isinstance(region, Region)
        self._check(region, args)
        return list(region.graph(*args))

    def _check(self, region: Region, inputs: tuple[Tensor, ...]) -> None:
        results = region(*inputs)
        steps = _StepByStep(region, region.values_inside(inputs))
        steps.run(*inputs, enable_io_processing=False)
        self.regions += 1
        self.compared += steps.compared
        # Buffers that share memory, and sums in place, change nothing.
        program = translate(region.graph, [layout_of(x) for x in inputs])
        separate(program)
        alone = Plan(new_store(), program, torch.get_num_threads()).run(inputs)
        for one, other in zip(results, alone, strict=False):
            assert torch.equal(one, other)


def check(case: Case) -> _Regions:
    """Form the regions of a graph; compare the graph with itself, and each region inside."""
    expected = case.graph(*case.inputs)
    _Known(case.graph).run(*case.inputs)
    FormRegions().run(case.graph, Context(kernels=(Direct(required=True),)))
    case.graph.graph.lint()
    checked = _Regions(case.graph)
    found = checked.run(*case.inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    return checked


def test_what_is_seen_inside_of_an_input_that_begins_anywhere() -> None:
    draw = Draw(0)
    add_weight(draw, "w", 8, 16)
    source = draw.qparams()

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        turned = A.transpose.int(inputs[0], 0, 1)
        return [A.linear.default(round_trip(turned, source), model.weight("w"), None)]

    x = draw.normal(16, 7)[:, 2:]
    inside = Region(make_graph(draw, 1, build)).values_inside((x,))
    assert torch.equal(inside["transpose_int"], x.t())


def check_all(seeds: range) -> None:
    regions = compared = 0
    for seed in seeds:
        try:
            checked = check(random_graph(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        regions += checked.regions
        compared += checked.compared
    assert regions >= len(seeds) // 2
    assert compared >= 8 * len(seeds)


@pytest.mark.parametrize("part", range(4))
def test_each_step_is_within_one_of_the_graph(part: int) -> None:
    check_all(range(part * 5, part * 5 + 5))


@pytest.mark.sweep
@pytest.mark.parametrize("part", range(20))
def test_each_step_is_within_one_of_the_graph_three_hundred_times(part: int) -> None:
    check_all(range(1000 + part * 15, 1015 + part * 15))
