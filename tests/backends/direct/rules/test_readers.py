"""The order that readers want: what turning a value brings into order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx import Graph

from quantfx.backends.direct.rules.readers import is_windowed, turned

A = torch.ops.aten


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (A.transpose.int, (1, 2)),
        (A.permute.default, ([0, 2, 3, 1],)),
        (A.permute.default, ([3, 0, -2, 1],)),
    ],
)
def test_a_value_that_is_turned_is_in_order_afterwards(op: Any, args: tuple[Any, ...]) -> None:
    graph = Graph()
    x = graph.placeholder("x")
    reader = graph.call_function(op, (x, *args))
    graph.output(reader)
    layout = turned(x, torch.Size([2, 3, 4, 5]), torch.uint8)
    assert layout is not None
    assert layout.shape == (2, 3, 4, 5)
    assert op(layout, *args).is_contiguous()


def test_two_readers_are_not_served() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    for _ in range(2):
        graph.call_function(A.transpose.int, (x, 0, 1))
    assert turned(x, torch.Size([2, 3]), torch.uint8) is None


def test_what_goes_into_windows_is_told() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    q = graph.call_function(A.relu.default, (x,))
    dq = graph.call_function(A.relu.default, (q,))
    assert not is_windowed(q)
    graph.call_function(A.max_pool2d.default, (dq, [2, 2]))
    assert is_windowed(q)
