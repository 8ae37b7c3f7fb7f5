"""The kernel that computes an operator, or why none does."""

from __future__ import annotations

from dataclasses import replace

import pytest

import quantfx
from quantfx import backends
from quantfx.backends.direct.runtime.library import runtime
from quantfx.tools.models.seeded import seeded
from tests.passes.report.explain.explained import IMAGE, Folded, explained, folded


def test_the_kernel_and_what_it_computes_besides() -> None:
    kernel = folded().explain("conv")[0].kernel
    assert kernel is not None
    assert (kernel.site, kernel.status, kernel.eager) == ("conv2d", "kernel", "qconv_pointwise")
    assert kernel.compiled is None
    assert kernel.with_others == ("relu",)
    of_relu = folded().explain("relu")[0].kernel
    assert of_relu is not None
    assert (of_relu.site, of_relu.with_others) == ("conv2d", ("conv2d",))
    floats = folded().explain("mean")[0].kernel
    assert floats is not None
    assert (floats.status, floats.eager, floats.region) == ("float", "aten.mean.dim", "")


def test_after_compile_the_compiled_kernel_is_there() -> None:
    result = explained(Folded)
    assert result.explain("conv")[0].kernel is not None
    result.compile(strict=False)
    kernel = result.explain("conv")[0].kernel
    assert kernel is not None
    assert kernel.compiled == "qconv_pointwise"
    floats = result.explain("mean")[0].kernel
    assert floats is not None
    assert floats.compiled == "float code of the compiler"


def test_regions_of_prepared_plans() -> None:
    if runtime().reason:
        pytest.skip(runtime().reason)
    backend = backends.get("x86", target="avx2", kernels="direct")
    result = quantfx.quantize(
        seeded(Folded).eval(), IMAGE, calibration=[IMAGE], backend=backend, progress=False
    )
    kernel = result.explain("conv")[0].kernel
    assert kernel is not None
    assert (kernel.eager, kernel.region) == ("direct.convolution", "region_0")
    mean = result.explain("mean")[0]
    assert mean.kernel is not None
    assert mean.kernel.region == "region_0"
    assert mean.verdict.endswith("a step of region_0 computes it")


def test_a_backend_without_kernels_and_a_kernel_missed() -> None:
    bare = replace(backends.get("x86", target="avx2"), kernels=())
    result = quantfx.quantize(
        seeded(Folded).eval(), IMAGE, calibration=[IMAGE], backend=bare, progress=False
    )
    [layer] = result.explain("conv")
    assert layer.kernel is not None
    assert (layer.kernel.status, layer.kernel.eager) == ("planned", None)
    assert "no kernels" in layer.verdict
    sites = tuple(
        replace(each, status="missed", kernel="", reason="conv2d.groups is odd")
        for each in folded().report.sites
    )
    missed = explained(Folded)
    missed.report = replace(missed.report, sites=sites)
    [layer] = missed.explain("conv")
    assert layer.verdict.endswith("it missed its kernel, conv2d.groups is odd")
    assert layer.remedies == (
        "leave it float by a rule of the config, or backend.without_templates(...)",
    )


def test_calls_that_were_merged_name_the_one_that_stayed() -> None:
    import torch
    from torch import Tensor, nn

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), self.layer(x) * 2

    result = explained(Twice, torch.randn(2, 8))
    first, second = result.explain("layer")
    assert first.kernel is not None
    assert second.kernel is not None
    assert {first.kernel.status, second.kernel.status} == {"kernel", "merged"}
    merged = first if first.kernel.status == "merged" else second
    other = second if merged is first else first
    assert merged.verdict.endswith(f"{other.site} computes the same")
