"""Recurrent layers keep their number of steps free, and their names and operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx.passes.errors import InputError
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused

FREE = {0: Dim.AUTO, 1: Dim.AUTO}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True, proj_size=3),
    "gru": lambda: nn.GRU(4, 6, batch_first=True),
    "rnn_tanh": lambda: nn.RNN(4, 6),
    "rnn_relu": lambda: nn.RNN(4, 6, nonlinearity="relu"),
}


def same(model: nn.Module, run: Callable[..., object], x: Tensor) -> bool:
    """Whether ``run`` computes what ``model`` does, in the layout that it has."""
    with torch.no_grad():
        ours, theirs = run(x), model(x)
    torch.testing.assert_close(ours, theirs, check_stride=True)
    return True


@pytest.mark.parametrize("kind", LAYERS)
def test_any_number_of_steps(kind: str) -> None:
    model = seeded(LAYERS[kind])
    graph = quantfx.capture(model, torch.randn(2, 5, 4), dynamic_shapes=(FREE,))
    operators = {node.name: node.target for node in graph.graph.nodes}
    assert operators[kind] is getattr(torch.ops.aten, kind).input
    assert all(same(model, graph, torch.randn(size, 9 - size, 4)) for size in (1, 2, 8))


def test_steps_that_come_first_are_free_like_a_batch() -> None:
    model = seeded(lambda: nn.GRU(4, 6))
    graph = quantfx.capture(model, torch.randn(5, 2, 4))
    assert same(model, graph, torch.randn(11, 2, 4))
    with refused("input-shape", InputError, site="input", fix="{0: Dim.AUTO, 1: Dim.AUTO}"):
        graph(torch.randn(5, 3, 4))


def test_an_exported_program() -> None:
    model, x = seeded(LAYERS["gru"]), torch.randn(2, 5, 4)
    program = torch.export.export(model, (x,), dynamic_shapes=(FREE,))
    assert same(model, quantfx.capture(program), torch.randn(3, 9, 4))


class OfOneLength(nn.Module):
    """Reads the states of five steps as one row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(30, 2)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.lstm(x)[0].flatten(1))
        return made


def test_a_length_that_the_model_needs_stays_fixed() -> None:
    graph = quantfx.capture(seeded(OfOneLength), torch.randn(2, 5, 4), dynamic_shapes=(FREE,))
    with refused("input-shape", InputError, site="x", fix="where the model itself fixes the size"):
        graph(torch.randn(2, 6, 4))


def test_each_gradient_is_the_models() -> None:
    model, x = seeded(LAYERS["lstm"]).train(), torch.randn(2, 5, 4)
    graph = quantfx.capture(model, (x,), dynamic_shapes=(FREE,), training=True)
    other = torch.randn(3, 7, 4)
    ours, theirs = (
        torch.autograd.grad(each(other)[0].sum(), list(each.parameters()))
        for each in (graph, model)
    )
    torch.testing.assert_close(ours, theirs)
