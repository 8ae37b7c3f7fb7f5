"""0 is a free size where a graph does what its model does there, and refused elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import InputError
from tests.refusals import refused


class Boxes(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.function = function

    def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
        return self.function(self.norm(self.linear(x)), boxes)


def summed(y: Tensor, boxes: Tensor) -> Tensor:
    return y + boxes.sum()


def unless_none(y: Tensor, boxes: Tensor) -> Tensor:
    return y - 5 if boxes.shape[0] == 0 else y + boxes.sum()


def scaled_if_none(y: Tensor, boxes: Tensor) -> Tensor:
    return y * (2 if boxes.shape[0] == 0 else 1)


def fails_for_none(y: Tensor, boxes: Tensor) -> Tensor:
    if boxes.shape[0] == 0:
        raise ValueError("no boxes")
    return y + boxes.sum()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("free", [None, {"x": {0: Dim.AUTO}, "boxes": {0: Dim.AUTO}}])
@pytest.mark.parametrize("function", [summed, unless_none, scaled_if_none, fails_for_none])
def test_zero_is_right_or_refused(function: Any, free: Any, training: bool) -> None:
    model = Boxes(function).train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    example = torch.randn(4, 8), torch.zeros(3, 4)  # values that a factor would not change
    graph = capture(model, example, dynamic_shapes=free, training=training)
    assert model.training is graph.training is model.norm.training is training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name])
    model.eval()
    graph.eval()
    none = torch.randn(4, 8), torch.zeros(0, 4)
    if function is summed:
        torch.testing.assert_close(graph(*none), model(*none))
        assert graph(torch.randn(0, 8), torch.randn(0, 4)).shape == (0, 8)
    else:
        with refused("input-shape", InputError, site="boxes", says="least 1"):
            graph(*none)
    assert graph(torch.randn(0, 8), torch.randn(2, 4)).shape == (0, 8)


def test_the_generator_is_where_it_was() -> None:
    model = nn.Linear(4, 4).eval()
    state = torch.random.get_rng_state()
    capture(model, (torch.ones(2, 4),))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_fails_for_few_rows_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    model, x = Halves().eval(), torch.randn(4, 8)
    graph = capture(model, (x,))
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError):
        graph(x[:1])


class Halves(nn.Module):
    """One row is in one piece."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(x.chunk(2), 1)
