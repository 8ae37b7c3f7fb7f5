"""Which casts are views: what is written to them is written to what was cast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantfx.passes.graph.aliasing import overwritten
from quantfx.tools.models.seeded import seeded
from tests import unchecked

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Cast(nn.Module):
    """Writes to a cast of what a linear reads."""

    def __init__(self, cast: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cast, self.linear = cast, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * 1.5
        made = self.cast(x).mul_(2)
        return self.linear(x), made.float()


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "another dtype": lambda x: x.double(),
    "of another tensor": lambda x: x.to(torch.zeros(1, dtype=torch.float64)),
    "a copy": lambda x: x.to(torch.float32, copy=True),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_not_the_tensor(name: str) -> None:
    model = seeded(lambda: Cast(COPIES[name]))
    assert not overwritten(unchecked.capture(model, (X,)).graph)
    result = unchecked.quantize(model, (X,))
    assert [site.site.node for site in result.report.sites] == ["linear"]
    with torch.no_grad():
        for found, expected in zip(result.module(X), model(X), strict=True):
            torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_a_cast_to_the_same_dtype_is_the_tensor() -> None:
    model = seeded(lambda: Cast(lambda x: x.to(torch.float32)))
    graph = unchecked.capture(model, (X,))
    result = unchecked.quantize(model, (X,))
    with torch.no_grad():
        for run in (graph, result.module):
            for found, expected in zip(run(X), model(X), strict=True):
                torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


class WrittenBeforeRelu(nn.Module):
    """The input of a linear is overwritten before the relu behind the linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        made = self.first(x)
        found = self.second(made)
        made[:, :1].add_(1.0)
        return found.relu()


@pytest.mark.parametrize("config", ["fp16", "static", "dynamic", "weight-only"])
def test_a_kernel_reads_before_its_input_is_overwritten(config: str) -> None:
    """A relu is not fused then: the kernel would stand where the relu does."""
    model = seeded(WrittenBeforeRelu)
    result = unchecked.quantize(model, (X,), config=config)
    with torch.no_grad():
        torch.testing.assert_close(result.module(X), result.quantized(X), atol=1e-5, rtol=0)
        torch.testing.assert_close(result.quantized(X), model(X), atol=0.05, rtol=0)
