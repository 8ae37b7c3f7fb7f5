"""The order of dimensions in memory, of tensors with and without gaps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantfx.passes.graph.memory_order import dense_strides, memory_order

X = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("value", "order"),
    [
        (X, [0, 1, 2, 3]),
        (X.to(memory_format=torch.channels_last), [0, 2, 3, 1]),
        (X.permute(3, 1, 0, 2), [2, 1, 3, 0]),
        (torch.zeros(3, 1, 4).transpose(0, 2), [1, 2, 0]),
        (torch.zeros(()), []),
        (torch.zeros(0, 3).t(), [0, 1]),
        (X[:, ::2], None),
        (X[:1].expand(2, -1, -1, -1), None),
        (torch.zeros(2, 2).to_sparse(), None),
    ],
)
def test_order(value: Tensor, order: list[int] | None) -> None:
    assert memory_order(value) == order


def test_strides_of_an_order_are_those_of_torch() -> None:
    for order in ([0, 1, 2, 3], [0, 2, 3, 1], [3, 1, 0, 2]):
        back = [order.index(axis) for axis in range(4)]
        wanted = torch.zeros([X.shape[axis] for axis in order]).permute(back)
        assert dense_strides(X.shape, order) == list(wanted.stride())
        assert wanted.shape == X.shape
