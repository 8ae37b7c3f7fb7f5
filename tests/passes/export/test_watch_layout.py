"""A graph holds for the layout of its example where its model reads layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import CaptureError, InputError
from quantfx.passes.inputs.contract import InputContract, contract_of
from tests.refusals import refused


class Steps(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 8)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.function(x))
        return y


def windows(x: Tensor) -> Tensor:
    rows, steps = x.shape
    return x.as_strided((rows, steps - 2, 3), (x.stride(0), x.stride(1), x.stride(1)))


READING: list[Callable[[Tensor], Tensor]] = [
    windows,
    lambda x: windows(x) * 2 if x.is_contiguous() else windows(x),
    lambda x: x[:, :3] * x.stride(1),
    lambda x: x[:, :3] + (1 if x.storage_offset() else 0),
    lambda x: torch.ops.aten.as_strided.default(x, (4, 3), (8, 1)),
]


@pytest.mark.parametrize("free", [None, {"x": {0: Dim.AUTO, 1: Dim.AUTO}}])
@pytest.mark.parametrize("function", READING)
def test_layouts_that_the_model_reads_are_the_examples(function: Any, free: Any) -> None:
    model = Steps(function).eval()
    graph = capture(model, (torch.randn(4, 8),), dynamic_shapes=free)
    x = torch.randn(4, 8)
    torch.testing.assert_close(graph(x), model(x))
    for other in (torch.randn(8, 4).t(), torch.randn(4, 16)[:, ::2], torch.randn(5, 8)[1:]):
        with refused("input-shape", InputError, site="x"):
            graph(other)
    found = contract_of(graph)
    assert found is not None
    assert InputContract.from_dict(found.to_dict()) == found


def test_strides_over_free_sizes_are_computed() -> None:
    model = Steps(lambda x: x[..., :3] * (2 if x.is_contiguous() else 1)).eval()
    free = {"x": {0: Dim.AUTO, 1: Dim.AUTO}}
    graph = capture(model, (torch.randn(4, 6, 8),), dynamic_shapes=free)
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(graph(x), model(x))
    with refused("input-shape", InputError, site="x"):
        graph(torch.randn(5, 3, 8).transpose(0, 1))


@pytest.mark.parametrize(
    "function", [lambda x: x[:, :3].relu(), lambda x: x.t().contiguous().view(-1, 4)[:, :3]]
)
def test_other_models_take_any_layout(function: Any) -> None:
    model = Steps(function).eval()
    graph = capture(model, (torch.randn(4, 8),))
    for other in (torch.randn(8, 4).t(), torch.randn(4, 16)[:, ::2]):
        torch.testing.assert_close(graph(other), model(other))


def test_the_model_is_as_it_was() -> None:
    def fails(x: Tensor) -> Tensor:
        raise ValueError("no")

    model = Steps(fails).eval()
    before = dict(vars(model))
    with pytest.raises(CaptureError):
        capture(model, (torch.randn(4, 8),))
    assert vars(model).keys() == before.keys()
    own = model.forward
    vars(model)["forward"] = own
    model.function = lambda x: x[:, :3]
    capture(model, (torch.randn(4, 8),))
    assert vars(model)["forward"] is own
