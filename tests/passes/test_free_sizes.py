"""First dimensions are free exactly where the model does the same for every size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from quantfx.passes.capture import capture
from quantfx.passes.input_contract import InputContract, contract_of


class Call(nn.Module):
    """Whatever a function makes of the inputs, behind a linear."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self.linear(inputs[0]), *inputs[1:])


def contract(function: Any, *inputs: Tensor, **options: Any) -> InputContract:
    found = contract_of(capture(Call(function).eval(), inputs, **options))
    assert found is not None
    return found


def rows(function: Any, *inputs: Tensor) -> list[int | str]:
    return [form.shape[0] for form in contract(function, *inputs).forms]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_batch_that_nothing_reads_is_free(size: int) -> None:
    found = contract(torch.relu, torch.randn(size, 4))
    assert isinstance(found.forms[0].shape[0], str)
    assert list(found.ranges.values()) == [(0, None)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(x.size(0), 2, 2),
        lambda x: x + torch.arange(x.size(0)).unsqueeze(1),
        lambda x: x.reshape(x.numel()),
        lambda x: x * x.shape[0],
        lambda x: x if x.shape[0] > 2 else x * 2,
        lambda x: x.expand(x.size(0), 4),
        lambda x: torch.stack([x[i] * i for i in range(x.shape[0])]),
    ],
)
def test_a_batch_that_the_graph_holds_is_fixed(function: Any) -> None:
    found = contract(function, torch.randn(4, 4))
    shape = found.forms[0].shape
    # Or it is free where a condition says so: the graph is that of more than two rows.
    assert shape == (4, 4) or any(">" in condition for condition in found.conditions)


def test_one_row_that_takes_another_path_is_no_part_of_the_range() -> None:
    found = contract(lambda x: x * 2 if x.shape[0] == 1 else x, torch.randn(4, 4))
    assert list(found.ranges.values()) == [(2, None)]
    assert rows(lambda x: x * 2 if x.shape[0] == 1 else x, torch.randn(1, 4)) == [1]


def test_each_size_is_tried_by_itself() -> None:
    model = Call(lambda x: x * 2 if x.shape[1] == 1 else x).eval()
    free = {"inputs": ({0: Dim.AUTO, 1: Dim.AUTO},)}
    found = contract_of(capture(model, (torch.randn(3, 5, 4),), dynamic_shapes=free))
    assert found is not None
    assert sorted(found.ranges.values()) == [(0, None), (2, None)]


def test_inputs_that_must_agree_share_a_size() -> None:
    one, other = rows(lambda x, y: x + y, torch.randn(3, 4), torch.randn(3, 4))
    assert isinstance(one, str)
    assert one == other
    first, second = rows(lambda x, y: x + y, torch.randn(3, 4), torch.randn(1, 4))
    assert first != second or first == 3


def test_free_sizes_of_dynamic_shapes_are_taken_over() -> None:
    found = contract_of(
        capture(
            nn.Linear(4, 4).eval(),
            (torch.randn(6, 5, 4),),
            dynamic_shapes=({0: Dim("batch", min=3, max=9), 1: Dim.AUTO},),
        )
    )
    assert found is not None
    batch, length, width = found.forms[0].shape
    assert width == 4
    assert found.ranges[str(batch)] == (3, 9)
    assert found.ranges[str(length)] == (0, None)
