"""Tensors that shapes alone decide are constants of a plan."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from quantfx.backends.direct.plans import translate
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.runtime.values import layout_of
from tests.backends.direct.qdq_cases import A, Draw, make_graph


def graph_of(build: Any) -> Any:
    return make_graph(Draw(0), 1, lambda model, inputs: [build(inputs[0])])


def mask(x: Tensor, diagonal: int) -> Tensor:
    filled = A.new_full.default(x, [5, 7], -math.inf)
    found: Tensor = A.triu.default(filled, diagonal)
    return found


@pytest.mark.parametrize("diagonal", [1, 0, -2])
def test_masks_are_added(diagonal: int) -> None:
    graph = graph_of(lambda x: A.add.Tensor(x, mask(x, diagonal)))
    x = torch.randn(2, 5, 7)
    region = Region(graph)
    steps = region.plan([x]).program.steps
    assert len(steps) == 1  # the sum alone
    assert region(x)[0].equal(graph(x)[0])


def test_masks_are_results_of_a_region() -> None:
    graph, x = graph_of(lambda x: mask(x, 1)), torch.randn(3)
    assert Region(graph)(x)[0].equal(graph(x)[0])


def test_equal_masks_are_one_tensor() -> None:
    graph = graph_of(lambda x: A.add.Tensor(A.add.Tensor(x, mask(x, 1)), mask(x, 1)))
    x = torch.randn(2, 5, 7)
    program = translate(graph, [layout_of(x)])
    read = {id(each.buffer.constant) for step in program.steps for each in step.reads()}
    assert len(read - {id(None)}) == 1
    assert Region(graph)(x)[0].equal(graph(x)[0])


def test_what_is_computed_has_no_triangle() -> None:
    graph = graph_of(lambda x: A.triu.default(A.mul.Tensor(x, 2.0), 1))
    with pytest.raises(Untranslatable, match=r"no step computes aten\.triu"):
        translate(graph, [layout_of(torch.randn(5, 7))])


def test_what_follows_is_not_computed_beforehand() -> None:
    graph = graph_of(lambda x: A.relu.default(A.new_full.default(x, [3], 1.0)))
    with pytest.raises(Untranslatable, match="is not computed beforehand"):
        translate(graph, [layout_of(torch.randn(5, 7))])
