"""What rounding to 8 bits costs a float graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantfx.tools.fuzz.expected_noise import noise_power
from tests import unchecked
from tests.tools.fuzz.shared import X86


def test_what_passes_int8_on_is_rounded_to_the_steps_of_its_input() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 16, 16)
    graph = unchecked.capture(nn.AdaptiveAvgPool2d(1).eval(), (x,))
    [power] = noise_power(graph, (x,), X86.recipe.patterns)
    step = float(x.max() - x.min()) / 255
    assert 0.3 < power / (4 * 8 * step**2 / 12) < 4  # the mean of 256 roundings has almost none


def test_layers_in_branches_are_rounded() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    graph = unchecked.capture(Branches().eval(), (x,))
    [power] = noise_power(graph, (x,), X86.recipe.patterns)
    assert power > 0


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        taken: Tensor = torch.cond(x.sum() > 0, self.one, self.other, (x,))
        return taken
