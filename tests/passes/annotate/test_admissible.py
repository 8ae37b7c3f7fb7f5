"""In-place operators whose write something else sees stay as they are, and the write is seen."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from quantfx.tools.models.seeded import seeded
from tests import unchecked

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Writes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)


class ToItsInput(Writes):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(self.first(x))
        made: Tensor = self.second(x)
        return made


class ToWhatAViewReads(Writes):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        made = self.first(x)
        view = made.view(4, 4)
        made.mul_(self.second(x))
        return view + 0, made


class ThroughAView(Writes):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        made = self.first(x)
        view = made.view(4, 4)
        return view.mul_(self.second(x).view(4, 4)), made + 0


@pytest.mark.parametrize("kind", [ToItsInput, ToWhatAViewReads, ThroughAView])
@pytest.mark.parametrize("backend", ["x86", "native"])
def test_a_write_that_is_seen_stays_one(kind: type[nn.Module], backend: str) -> None:
    model = seeded(kind)
    result = unchecked.quantize(copy.deepcopy(model), (X.clone(),), backend=backend)
    reasons = [each.reason for each in result.report.skipped]
    assert any("mul_ writes in place, which" in reason for reason in reasons)
    for run in (result.quantized, result.module):
        ours, theirs = X.clone(), X.clone()
        with torch.no_grad():
            found, expected = run(ours), model(theirs)
        torch.testing.assert_close(found, expected, atol=0.06, rtol=0)
        torch.testing.assert_close(ours, theirs, atol=0.06, rtol=0)
