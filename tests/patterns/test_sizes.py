"""Sizes that are numbers need nothing; those that are free, and those of data, are told apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from quantfx.patterns.sizes import depends_on_data, known_true, likely


class Selects(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x[:, 0] > 0] + 1


@pytest.fixture(scope="module")
def sizes() -> tuple[Any, Any]:
    """A size that is free, and one that depends on data."""
    program = export(Selects(), (torch.randn(5, 3),), dynamic_shapes=({0: Dim("rows", min=2)},))
    free, *_ = program.graph.find_nodes(op="placeholder")
    (output,) = program.graph.find_nodes(op="output")
    return free.meta["val"].shape[0], output.args[0][0].meta["val"].shape[0]


def test_conditions_hold_for_all_sizes_or_are_not_known(sizes: tuple[Any, Any]) -> None:
    rows, selected = sizes
    assert known_true(rows >= 2)
    assert not known_true(rows == 5)
    assert not known_true(selected == 0)  # and asking is no guard, which would raise
    assert known_true(True)
    assert not known_true(False)


def test_data_alone_decides_some(sizes: tuple[Any, Any]) -> None:
    rows, selected = sizes
    assert [depends_on_data(each) for each in (5, rows, selected)] == [False, False, True]
    assert [likely(each, 7) for each in (4, rows, selected)] == [4, 5, 7]
