from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantfx import backends
from quantfx.passes.graph.graphs import Site
from quantfx.passes.lower.merge_equal import MergeEqual
from tests import unchecked
from tests.export_cases import Net

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def test_equal_kernel_calls_become_one() -> None:
    torch.manual_seed(0)
    model = Net(lambda f, x: f(x).sin() + f(x).cos(), nn.Linear(8, 8)).eval()
    result = unchecked.quantize(model, (X,))
    lowered = result.backend.lower(result.quantized)
    calls = [str(node.target) for node in lowered.graph.nodes if "onednn" in str(node.target)]
    assert calls == ["onednn.qlinear_prepack.default", "onednn.qlinear_pointwise.default"]
    first, second = result.report.sites
    assert (first.site, first.kernel) == (Site("", "linear"), "qlinear_pointwise")
    assert (second.site, second.kernel) == (Site("", "linear_1"), "merged with its equal")
    assert (first.status, second.status) == ("kernel", "merged")
    torch.testing.assert_close(result.module(X), result.quantized(X), rtol=1e-5, atol=1e-6)


def test_random_operators_stay_apart() -> None:
    """Equal calls of a random operator have different values; only kernels and q/dq are merged."""
    model = Net(lambda f, x: f(x) + torch.rand_like(x) - torch.rand_like(x), nn.Linear(8, 8)).eval()
    result = unchecked.quantize(model, (X,))
    assert len([n for n in result.module.graph.nodes if "rand_like" in str(n.target)]) == 2


def test_it_runs_on_lowered_graphs_only() -> None:
    backend = backends.get("x86", target="any")
    pipeline = backend.lower_pipeline
    assert pipeline.names[-1] == MergeEqual.name
    assert MergeEqual.requires == {"lowered"}


class Recurrent(nn.Module):
    """Writes each step's result into a buffer that the next step reads, through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("cache", torch.zeros(4, 8))
        self.cache: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        steps: list[Tensor] = []
        for step in range(3):
            y = torch.tanh(self.linear(self.cache.sum(0, keepdim=True) + x))
            self.cache[step] = y[0]
            steps.append(y)
        return tuple(steps)


def literals(f: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Multiply by numbers, among them those by which values are numbered, and by tensors."""
    return (*(f(x * k) for k in range(1, 12)), f(x * x.sin()), f(x * x.cos()))


@pytest.mark.parametrize("mode", ["dynamic", "fp16", "weight-only"])
@pytest.mark.parametrize("make", [Recurrent, lambda: Net(literals, nn.Linear(8, 8))])
def test_calls_on_different_values_stay_apart(make: Callable[[], nn.Module], mode: str) -> None:
    torch.manual_seed(0)
    x = X[:1]
    result = unchecked.quantize(make().eval(), (x,), config=mode)
    expected = result.quantized(x)
    for given, wanted in zip(result.module(x), expected, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)
    assert "merged with its equal" not in {site.kernel for site in result.report.sites}


def test_linears_of_equal_random_operators_stay_apart() -> None:
    torch.manual_seed(0)
    noisy = Net(
        lambda f, x: f(x + torch.randn_like(x)) - f(x + torch.randn_like(x)), nn.Linear(8, 8)
    )
    result = unchecked.quantize(noisy.eval(), (X,), config="dynamic")
    assert float(result.module(X).abs().max()) > 0.1
