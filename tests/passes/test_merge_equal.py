from __future__ import annotations

import torch
from torch import nn

import quantfx
from quantfx import backends
from quantfx.passes.graphs import Site
from quantfx.passes.merge_equal import MergeEqual
from tests.export_cases import Net

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def test_equal_kernel_calls_become_one() -> None:
    torch.manual_seed(0)
    model = Net(lambda f, x: f(x).sin() + f(x).cos(), nn.Linear(8, 8)).eval()
    result = quantfx.quantize(model, (X,), calibration=[X], progress=False)
    lowered = result.backend.lower(result.quantized)
    calls = [str(node.target) for node in lowered.graph.nodes if "onednn" in str(node.target)]
    assert calls == ["onednn.qlinear_prepack.default", "onednn.qlinear_pointwise.default"]
    first, second = result.report.sites
    assert (first.site, first.kernel) == (Site("", "linear"), "qlinear_pointwise")
    assert (second.site, second.kernel) == (Site("", "linear_1"), "merged with its equal")
    torch.testing.assert_close(result.module(X), result.quantized(X), rtol=1e-5, atol=1e-6)


def test_random_operators_stay_apart() -> None:
    """Equal calls of a random operator have different values; only kernels and q/dq are merged."""
    model = Net(lambda f, x: f(x) + torch.rand_like(x) - torch.rand_like(x), nn.Linear(8, 8)).eval()
    result = quantfx.quantize(model, (X,), calibration=[X], progress=False)
    assert len([n for n in result.module.graph.nodes if "rand_like" in str(n.target)]) == 2


def test_it_runs_on_lowered_graphs_only() -> None:
    backend = backends.get("x86")
    pipeline = backend.lower_pipeline
    assert pipeline.names[-1] == MergeEqual.name
    assert MergeEqual.requires == {"lowered"}
