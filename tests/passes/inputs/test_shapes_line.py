from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import CaptureError, InputError
from quantfx.passes.export.export_reason import advised
from quantfx.passes.inputs.contract import contract_of
from quantfx.passes.inputs.shapes_line import other_dimensions, shapes_line
from tests.passes.inputs.test_row_pieces import form
from tests.refusals import refused


class Nested(nn.Module):
    """Sizes that the graph holds for, in a tensor and in a dict of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, others: dict[str, Any], scale: float) -> Tensor:
        y: Tensor = self.linear(x).reshape(x.shape[0] * x.shape[1], 8)
        return y.sum(0) * scale + others["a"][0].sum(0) + others["b"]


def inputs(rows: int, length: int, others: int) -> tuple[Any, ...]:
    nested = {"a": [torch.ones(others, 8)], "b": torch.ones(8)}
    return torch.ones(rows, length, 8), nested, 0.5


def test_the_line_is_what_export_takes() -> None:
    graph = capture(Nested().eval(), inputs(2, 3, 4))
    contract = contract_of(graph)
    assert contract is not None
    other = inputs(3, 5, 6)
    line = shapes_line(contract, dict(zip(("x", "others", "scale"), other, strict=True)))
    assert line == (
        "dynamic_shapes={'x': {0: Dim.AUTO, 1: Dim.AUTO}, "
        "'others': {'a': [{0: Dim.AUTO}], 'b': None}, 'scale': None} "
        "(from torch.export import Dim)"
    )
    shapes = eval(line.partition("=")[2].partition(" (")[0], {"Dim": Dim})  # as a user would
    free = capture(Nested().eval(), inputs(2, 3, 4), dynamic_shapes=shapes)
    torch.testing.assert_close(free(*other), free(*other))
    assert free(*other).shape == (8,)


class Several(nn.Module):
    def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
        return first + rest[0] * rest[1].mean(1, keepdim=True)


def test_the_line_is_taken_for_any_number_of_arguments() -> None:
    model, x = Several().eval(), torch.randn(2, 3)
    graph = capture(model, (x, x, x))
    other = torch.randn(2, 5)
    with pytest.raises(InputError) as refusal:
        graph(other, other, x)
    text = str(refusal.value).partition("dynamic_shapes=")[2].partition(" (")[0]
    free = capture(model, (x, x, x), dynamic_shapes=eval(text, {"Dim": Dim}))
    torch.testing.assert_close(free(other, other, x), model(other, other, x))
    shapes = ({1: Dim.AUTO}, ({1: Dim.AUTO}, None))
    free = capture(model, (x, x, x), dynamic_shapes=shapes)
    torch.testing.assert_close(free(other, other, x), model(other, other, x))


class Keywords(nn.Module):
    def forward(self, x: Tensor, **others: Tensor) -> Tensor:
        return x + others["y"]


def test_a_model_of_any_keywords_is_told_to_name_them() -> None:
    x = torch.randn(2, 3)
    of_torch = AssertionError("Must provide a tree_name when there might be a mismatch")
    with (
        refused("export-rejects", CaptureError, site="Keywords"),
        advised(Keywords().eval(), ((x,), {"y": x})),
    ):
        raise CaptureError("torch.export rejects Keywords", rule="export-rejects") from of_torch


def test_dimensions_that_differ() -> None:
    assert other_dimensions(form("x", 2, "s0", 4), torch.zeros(3, 9, 4)) == [0]
    assert other_dimensions(form("x", 2, 4), torch.zeros(3)) == []
