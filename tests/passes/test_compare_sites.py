from __future__ import annotations

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
    result = quantfx.quantize(
        Named().eval(), (), example_kwargs=kwargs, calibration=[kwargs], progress=False
    )
    for compared in (result.compare_sites(), result.compare_sites(**kwargs)):
        assert len(compared) == 2
        assert all(each.within(1, 1e-5) for each in compared)
