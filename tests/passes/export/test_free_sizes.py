"""First dimensions are free exactly where the model does the same for every size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import InputError
from quantfx.passes.inputs import size_expression
from quantfx.passes.inputs.contract import InputContract, contract_of


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


def test_a_size_under_a_condition_that_cannot_be_computed_is_fixed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Call(lambda x: x * 2 if x.shape[0] % 7 == 4 and x.shape[1] ** 2 > 20 else x).eval()
    free = {"inputs": ({0: Dim.AUTO, 1: Dim.AUTO},)}
    monkeypatch.delitem(size_expression._FUNCTIONS, "Mod")
    size_expression.parse.cache_clear()
    found = contract_of(capture(model, (torch.randn(4, 5, 4),), dynamic_shapes=free))
    assert found is not None
    rows, length, _ = found.forms[0].shape
    assert rows == 4
    assert list(found.ranges) == [length]
    assert len(found.conditions) == 1


def test_a_size_that_the_model_pins_is_a_number() -> None:
    model = Call(lambda x: x * 2 if x.shape[0] == 4 else x).eval()
    graph = capture(model, (torch.randn(4, 4),), dynamic_shapes={"inputs": ({0: Dim.AUTO},)})
    found = contract_of(graph)
    assert found is not None
    assert found.forms[0].shape == (4, 4)
    with pytest.raises(InputError, match=r"has shape \(2, 4\), .* fixes the size"):
        graph(torch.randn(2, 4))


def test_what_conditions_tie_to_a_fixed_size_is_fixed() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        sized = x.view(x.shape[0], 4)
        return sized * 2 if x.shape[0] > y.shape[0] else sized.sum() + y.sum()

    found = contract(function, torch.randn(5, 4), torch.randn(3, 4))
    assert [form.shape for form in found.forms] == [(5, 4), (3, 4)]


def test_an_argument_of_another_value_for_one_row_is_another_graph() -> None:
    model = Call(lambda x: x * (5 if x.shape[0] == 1 else x.shape[0])).eval()
    free = {"inputs": ({0: Dim.AUTO},)}
    found = contract_of(capture(model, (torch.randn(4, 4),), dynamic_shapes=free))
    assert found is not None
    assert list(found.ranges.values()) == [(2, None)]


@pytest.mark.parametrize(
    ("function", "other"),
    [
        (lambda x, p: x + p, torch.randn(1, 4)),
        (lambda x, p: x * p, torch.randn(1)),
        (lambda x, p: (x @ x.mT)[:, None] + p, torch.randn(1, 1, 3, 3)),
        (lambda x, p: torch.cat([x, p]), torch.randn(0, 4)),
    ],
)
def test_one_row_or_none_beside_a_batch_stays(function: Any, other: Tensor) -> None:
    shape = (3, 4) if other.dim() > 2 else (4,)
    model = Call(function).eval()
    graph = capture(model, (torch.randn(5, *shape), other))
    for size in (2, 1, 7):
        x = torch.randn(size, *shape)
        torch.testing.assert_close(graph(x, other), model(x, other))
    with pytest.raises(InputError, match="has shape .5,"):
        graph(torch.randn(5, *shape), torch.randn(5, *other.shape[1:], 1)[..., 0])


def test_a_batch_of_one_beside_a_mask_is_free() -> None:
    found = contract(lambda x, m: x + m, torch.randn(1, 6, 4), torch.randn(6, 4))
    assert isinstance(found.forms[0].shape[0], str)
    assert found.forms[1].shape == (6, 4)


@pytest.mark.parametrize("function", [lambda x: x[:, 0], lambda x: x[:, None] * 2, lambda x: x[:]])
def test_a_slice_of_all_rows_leaves_them_free(function: Any) -> None:
    (size,) = rows(function, torch.randn(3, 5, 4))
    assert isinstance(size, str)


def test_a_number_is_held_to_its_conditions_at_one() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor, n: int) -> Tensor:
            return x * (2 if n % 2 else 1)

    graph = capture(Odd().eval(), (torch.ones(2), 4), dynamic_shapes={"x": None, "n": Dim.AUTO})
    torch.testing.assert_close(graph(torch.ones(2), 6), torch.ones(2))
    for number, message in ((1, "Mod"), (3, "Mod"), (-2, "at least 0"), (2.0, "whole number")):
        with pytest.raises(InputError, match=message):
            graph(torch.ones(2), number)


class Fixed(nn.Module):
    """Wants its sizes as numbers, so that an export with free ones fails."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x.shape[0], int):
            raise TypeError("a number, please")
        return self.layer(x) + x


def test_an_export_that_fails_leaves_no_marks_on_the_example() -> None:
    x = torch.randn(4, 8)
    graph = capture(Fixed().eval(), (x,))
    assert not vars(x)
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        assert not isinstance(value, Tensor) or all(type(size) is int for size in value.shape)
