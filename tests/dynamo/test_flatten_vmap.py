"""Regions of vmap become operators on whole batches; other transforms are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.errors import CaptureError
from quantfx.tools.models.seeded import seeded
from tests.dynamo.test_frame_graph import captured, operators
from tests.refusals import refused


class Transformed(nn.Module):
    """A transform between two layers."""

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.transform(self.first(x)))
        return out


def once(x: Tensor) -> Tensor:
    return torch.vmap(lambda row: row * row.sum() + 1.0)(x)


def twice(x: Tensor) -> Tensor:
    return torch.vmap(lambda row: torch.vmap(lambda each: each / row.norm())(row))(once(x))


def slope(x: Tensor) -> Tensor:
    return torch.func.grad(lambda y: y.square().sum())(x)


@pytest.mark.parametrize("transform", [once, twice])
def test_what_is_mapped_is_computed_from_the_inputs(transform: Callable[[Tensor], Tensor]) -> None:
    model, x = seeded(lambda: Transformed(transform)).eval(), torch.randn(4, 8)
    (frame,) = captured(model, x)
    assert operators(frame.graph).count("aten.linear.default") == 2
    for sign in (1, -1):
        torch.testing.assert_close(frame.graph(x * sign)[0], model(x * sign))


def test_a_model_that_maps_quantizes_itself() -> None:
    model, x = seeded(lambda: Transformed(once)).eval(), torch.randn(4, 8)
    auto = quantfx.auto(model, calibration_batches=1)
    with torch.no_grad():
        auto(x)
        error = (auto(x) - model(x)).norm() / model(x).norm()
    assert auto.state == "int8"
    assert 0 < error < 0.1


def test_another_transform_is_refused_by_name() -> None:
    model = quantfx.auto(Transformed(slope).eval())
    with refused("no-transform", CaptureError, site="grad"):
        model(torch.randn(4, 8))
