from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.report.report import rows_of
from quantfx.testing import assert_quantized
from quantfx.tools.models.seeded import seeded

FLOAT = quantfx.Config().op("gru", None)


class Net(nn.Module):
    """Two linears around a layer that FLOAT keeps float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.memory = nn.GRU(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.memory(self.first(x))[0])


@pytest.fixture(scope="module")
def result() -> quantfx.Result:
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    backend = quantfx.backends.get("x86", target="avx2")
    return quantfx.quantize(seeded(Net), (x,), calibration=[x], backend=backend, config=FLOAT)


@pytest.mark.parametrize("sites", [["gru"], ["memory"], ["mem*"], None])
@pytest.mark.parametrize("lowered", [2, {"linear": 2}, None])
def test_what_holds(result: quantfx.Result, lowered: int | None, sites: list[str] | None) -> None:
    assert_quantized(result, lowered=lowered, float_sites=sites)


@pytest.mark.parametrize(
    ("lowered", "sites", "says"),
    [
        (3, None, "operators: 2 reached a kernel, not 3"),
        ({"linear": 1, "conv2d": 1}, None, "conv2d: 0 reached a kernel, not 1\nlinear: 2 reached a kernel, not 1"),
        ({}, None, "linear: 2 reached a kernel, not 0"),
        (None, [], "gru (aten.gru.input, in memory) stays float: kept float: rule op='gru'"),
        (None, ["gru", "last"], "'last' of float_sites names no operator that stays float"),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_named(
    result: quantfx.Result, lowered: int | None, sites: list[str] | None, says: str
) -> None:
    with pytest.raises(AssertionError, match=f"^{re.escape(says)}"):
        assert_quantized(result, lowered=lowered, float_sites=sites)


class Odd(nn.Module):
    """Operators that no template takes, some that compute no floats, and a name used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.erf, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.gru = nn.Linear(8, 8)
        self.memory = nn.GRU(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(torch.erf(self.erf(x))).reshape(4, 8)
        return self.memory(self.gru(y))[0], y.argmax(-1) + 1


def test_operators_that_no_template_mentions_are_named() -> None:
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    backend = quantfx.backends.get("x86", target="avx2")
    odd = quantfx.quantize(seeded(Odd), (x,), calibration=[x], backend=backend, config=FLOAT)
    with pytest.raises(AssertionError) as caught:
        assert_quantized(odd, float_sites=[])
    assert [line.partition(" stays float")[0] for line in str(caught.value).splitlines()] == [
        "erf (aten.erf.default)",
        "layer_norm (aten.layer_norm.default, in norm)",
        "gru (aten.gru.input, in memory)",
    ]
    assert_quantized(odd, float_sites=["erf", "norm", "memory"])


def test_a_site_that_missed_its_kernel_is_named_with_the_reason(result: quantfx.Result) -> None:
    first, last = result.report.sites
    changed = quantfx.Result.__copy__(result)
    sites = (
        replace(first, status="missed", kernel="", reason="a test says so"),
        replace(last, converted=False),
    )
    changed.report = replace(result.report, sites=sites, rows=rows_of(sites))
    with pytest.raises(AssertionError) as caught:
        assert_quantized(changed)
    assert str(caught.value).splitlines() == [
        "linear (linear) did not reach its kernel: a test says so",
        "linear_1 (linear) is planned and not converted",
    ]
