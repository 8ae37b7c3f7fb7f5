"""Norms by the root of the mean square, as a layer and spelled out, are inside of a region."""

from __future__ import annotations

from operator import getitem

import pytest
import torch
from torch import Tensor, nn

from quantfx import backends
from quantfx.tools.models.seeded import seeded
from tests import unchecked


class Spelled(nn.Module):
    """As Llama's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Between(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, 16), norm, nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.second(self.norm(self.first(x) + 2))  # no mean of zero
        return made


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.RMSNorm(16),
        lambda: nn.RMSNorm(16, eps=1e-2, elementwise_affine=False),
        Spelled,
    ],
    ids=["layer", "without weight", "spelled out"],
)
def test_it_is_inside_and_exact(norm: type[nn.Module]) -> None:
    model = seeded(lambda: Between(norm()))
    x = torch.randn(3, 5, 8)
    result = unchecked.quantize(model, (x,), backend=backends.get("x86"))
    calls = [node for node in result.module.graph.nodes if node.op == "call_function"]
    assert [node for node in calls if node.target is not getitem] == []
    expected = result.quantized(x)
    assert torch.allclose(result.module(x), expected, atol=0.01 * float(expected.std()))
    assert all(each.within(1, 1e-5) for each in result.compare_sites(x))


def test_rows_of_two_dimensions_stay_outside() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 16), nn.RMSNorm((5, 16)), nn.Linear(16, 4)))
    x = torch.randn(3, 5, 8)
    result = unchecked.quantize(model, (x,), backend=backends.get("x86", kernels="direct"))
    assert "aten.rms_norm.default" in [str(node.target) for node in result.module.graph.nodes]
    torch.testing.assert_close(result.module(x), result.quantized(x), atol=0.05, rtol=0)
