"""Which nodes become regions, what is said of the others, and what a report and a drawing show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.nn import functional as F

import quantfx
from quantfx import backends
from quantfx.backends.direct import family, form_regions
from quantfx.backends.direct.form_regions import FormRegions
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.runtime import library
from quantfx.patterns.errors import QuantfxError
from tests import unchecked
from tests.models.small import cat_pool_net, residual_block
from tests.refusals import refused


def quantized(model: nn.Module, *inputs: Tensor, **options: Any) -> quantfx.Result:
    options.setdefault("backend", backends.get("x86"))
    return unchecked.quantize(model.eval(), inputs, **options)


def regions(result: quantfx.Result) -> list[Region]:
    return [each for each in result.module.modules() if isinstance(each, Region)]


class Around(nn.Module):
    """Two convolutions with something in between that no step computes."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.between(self.first(x)))
        return out


SMALL = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
IMAGE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def test_a_convolutional_network_is_one_region(graph_snapshot: SnapshotAssertion) -> None:
    result = quantized(cat_pool_net(), SMALL)
    (region,) = regions(result)
    assert {site.kernel for site in result.report.sites} == {
        "direct.convolution",
        "direct.lookup",
        "direct.matmul",
        "direct.pool",
        "direct.view",
    }
    assert result.backend.lower(result.quantized) == graph_snapshot(name="one_region")
    assert len(region.plan((SMALL,)).names()) == len(region.plan((SMALL,)).program.steps)


def test_what_no_step_computes_divides_regions() -> None:
    backend = backends.get("x86", kernels="direct")
    result = quantized(Around(torch.erfinv), IMAGE * 0.1, backend=backend)
    assert len(regions(result)) == 2
    assert {site.kernel for site in result.report.sites} == {"direct.convolution"}


def test_float_images_between_regions_do_not_pay() -> None:
    result = quantized(Around(torch.erfinv), IMAGE * 0.1)
    first, second = result.report.sites
    assert (first.kernel, second.kernel) == ("qconv_pointwise", "direct.convolution")
    assert "costs more than it saves" in first.reason


def test_a_path_around_divides_regions() -> None:
    class Detour(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            out: Tensor = self.second(y + torch.erfinv(y * 0.001))
            return out

    result = quantized(Detour(), IMAGE, backend=backends.get("x86", kernels="direct"))
    found = result.module(IMAGE)
    assert len(regions(result)) == 2
    assert (found - result.quantized(IMAGE)).abs().max() < 0.05


def test_a_reader_of_an_early_value_moves_behind_the_region() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = F.relu(self.first(x))
            early = torch.erfinv(torch.sigmoid(y) * 0.5)
            return early, self.second(y)

    result = quantized(Early(), IMAGE)
    for one, other in zip(result.module(IMAGE), result.quantized(IMAGE), strict=True):
        assert (one - other).abs().max() < 0.05


def test_a_site_outside_says_why() -> None:
    # Windows that overlap: no step averages them.
    result = quantized(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(4)), IMAGE)
    _, pool = result.report.sites
    assert pool.kernel == "dq-op-q"
    assert pool.reason.startswith("not in a prepared plan: its windows overlap")


def test_the_families_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernels(choice: str) -> set[str | None]:
        backend = backends.get("x86", kernels=choice)
        result = quantized(residual_block(), torch.randn(1, 4, 8, 8), backend=backend)
        return {site.kernel for site in result.report.sites}

    assert kernels("onednn") == {"qconv_pointwise"}
    assert kernels("direct") == kernels("auto") == {"direct.convolution"}
    monkeypatch.setenv("QUANTFX_KERNELS", "onednn")
    assert kernels("auto") == {"qconv_pointwise"}
    with refused("unknown-name", site="onedn", says="onednn"):
        backends.get("x86", kernels="onedn")


def test_a_machine_without_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = library.Runtime(reason="there is no C++ compiler: install g++")
    monkeypatch.setattr(library, "_parts", lambda: nothing)
    for module in (form_regions, family):
        monkeypatch.setattr(module, "runtime", lambda: nothing)
    result = quantized(residual_block(), torch.randn(1, 4, 8, 8))
    assert {site.kernel for site in result.report.sites} == {"qconv_pointwise"}
    with refused("no-direct-runtime", QuantfxError, says="install g"):
        backends.get("x86", kernels="direct")


def test_every_matched_site_is_a_region_of_its_own_where_none_were_formed() -> None:
    x = torch.randn(1, 4, 8, 8)
    plain = backends.get("x86", kernels="direct")
    pipeline = plain.lower_pipeline.without(FormRegions.name)
    from dataclasses import replace

    result = quantized(residual_block(), x, backend=replace(plain, lower_pipeline=pipeline))
    assert len(regions(result)) == 2
    assert {site.kernel for site in result.report.sites} == {"direct.convolution"}
    assert (result.module(x) - result.quantized(x)).abs().max() < 0.1


def test_sites_inside_are_compared() -> None:
    result = quantized(cat_pool_net(), SMALL)
    compared = result.compare_sites()
    assert {each.site for each in compared} == {each.site for each in result.report.sites}
    assert all(each.within(1, 1e-5) for each in compared)


def one_conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())


@pytest.mark.sweep  # in CI test_compiled_2_13.py has such a wrapper, of the same operators
@pytest.mark.parametrize("model", [one_conv, residual_block])
def test_wrappers_in_c_call_the_operators_of_torch(model: Callable[[], nn.Module]) -> None:
    x = torch.randn(1, 4, 8, 8)
    result = quantized(model(), x)
    compiled = result.compile(wrapper="cpp")
    assert {site.kernel for site in result.report.sites} == {"direct.convolution"}
    assert {site.compiled for site in result.report.sites} <= {
        "qconv_pointwise",
        "qconv2d_pointwise.binary",
    }
    assert (compiled(x) - result.quantized(x)).abs().max() < 0.1


def test_wrappers_in_c_are_refused_where_there_are_plans_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(1, 4, 8, 8)
    monkeypatch.setattr(quantfx.Result, "tune", lambda _: pytest.fail("it tunes before it refuses"))
    only = quantized(residual_block(), x, backend=backends.get("x86", kernels="direct"))
    with refused("not-here", says="prepared plans"):
        only.compile(wrapper="aot", tune=True)


def test_free_sizes_compile_and_run() -> None:
    x = torch.randn(2, 3, 16, 16)
    free = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2))
    result = quantized(model, x, dynamic_shapes=free)
    compiled = result.compile()
    for shape in ((2, 3, 16, 16), (1, 3, 12, 20), (5, 3, 9, 9)):
        y = torch.randn(shape)
        expected = result.quantized(y)
        for run in (result.module, compiled):
            assert (run(y) - expected).abs().max() < 0.1
