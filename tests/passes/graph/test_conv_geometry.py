from __future__ import annotations

from typing import Any

import pytest
from torch.fx import Graph, Node

from quantfx.passes.graph.conv_geometry import Geometry
from quantfx.patterns.schema import resolve_op


def conv(padding: object, dilation: object = 1, op: str = "aten.conv2d.default") -> Node:
    graph = Graph()
    x, w = graph.placeholder("x"), graph.placeholder("w")
    kwargs: dict[str, Any] = {"padding": padding, "dilation": dilation, "stride": [1, 2]}
    return graph.call_function(resolve_op(op), (x, w), kwargs)


@pytest.mark.parametrize(
    ("padding", "kernel", "dilation", "expected"),
    [
        ("same", (3, 3), 1, ((1, 1), (1, 1))),
        ("same", (2, 4), 1, ((0, 1), (1, 2))),
        ("same", (3, 2), [2, 3], ((2, 2), (1, 2))),
        ("valid", (3, 3), 1, ((0, 0), (0, 0))),
    ],
)
def test_padding_by_name(
    padding: str, kernel: tuple[int, int], dilation: object, expected: object
) -> None:
    geometry = Geometry.of(conv(padding, dilation, "aten.conv2d.padding"), kernel)
    assert geometry.padding == expected
    assert geometry.is_even == all(front == back for front, back in geometry.padding)


def test_one_number_holds_for_each_dimension() -> None:
    geometry = Geometry.of(conv([2], 3), (3, 5))
    assert geometry.front == [2, 2]
    assert geometry.dilation == (3, 3)
    assert geometry.stride == (1, 2)
    assert geometry.extent == (7, 13)


def test_ends_begin_with_the_last_dimension() -> None:
    geometry = Geometry.of(conv("same", 1, "aten.conv2d.padding"), (2, 4))
    assert geometry.ends == [1, 2, 0, 1]


def test_flat_adds_a_dimension_in_front_that_does_nothing() -> None:
    flat = Geometry.of(conv([1, 2], [1, 3]), (3, 5)).flat
    assert flat.kernel == (1, 3, 5)
    assert flat.extent == (1, 3, 13)
    assert flat.padding == ((0, 0), (1, 1), (2, 2))
    assert flat.stride == (1, 1, 2)
