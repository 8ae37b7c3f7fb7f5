from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import quantfx


class Named(nn.Module):
    """Two layers, each with an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(16, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor, options: dict[str, Tensor]) -> Tensor:
        total: Tensor = self.wide(x).relu() + self.narrow(options["narrow"])
        return total


def test_keyword_inputs_in_any_order() -> None:
    torch.manual_seed(0)
    kwargs = {"options": {"narrow": torch.randn(3, 8)}, "x": torch.randn(3, 16)}
    result = quantfx.quantize(Named().eval(), (), example_kwargs=kwargs, calibration=[kwargs])
    for compared in (result.compare_sites(), result.compare_sites(**kwargs)):
        assert len(compared) == 2
        assert all(each.within(1, 1e-5) for each in compared)


class Turned(nn.Module):
    """A linear's result plus a computed tensor that lies in memory in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        turned = x.sigmoid().transpose(-2, -1)
        total: Tensor = (self.layer(x) + turned).tanh()
        return total


@pytest.mark.parametrize(
    "shape", [pytest.param((2, 16, 16), marks=pytest.mark.sweep), (2, 3, 16, 16)]
)
def test_a_summand_in_another_order_of_memory(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    result = quantfx.quantize(Turned().eval(), (x,), calibration=[x])
    (compared,) = result.compare_sites()
    assert compared.kernel == "qlinear_pointwise.binary"
    assert compared.within(0, 1e-5)
    compiled = result.compile()(x)
    assert torch.allclose(compiled, result.quantized(x), atol=1e-5)


class Twice(nn.Module):
    """Two lookups in one table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        both: Tensor = self.table(x) + self.table(y).relu()
        return both


def test_calls_that_read_one_packed_table() -> None:
    torch.manual_seed(0)
    inputs = torch.tensor([1, 2, 3]), torch.tensor([4, 2, 0])
    result = quantfx.quantize(Twice().eval(), inputs, config="weight-only-4bit")
    assert [each.within(0, 1e-6) for each in result.compare_sites()] == [True, True]
