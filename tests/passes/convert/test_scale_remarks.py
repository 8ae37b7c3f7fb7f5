"""Scales that do not fit their values: the row of the report and the warning that name the site."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.passes.report.report import Report
from quantfx.patterns.errors import QuantfxWarning
from tests import unchecked
from tests.refusals import warned

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    def __init__(self, size: float = 1.0, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(8, 4, bias=bias)
        with torch.no_grad():
            self.fc.weight.mul_(size)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(x)
        return result


def quantize(model: nn.Module, x: Tensor, **options: Any) -> Any:
    return unchecked.quantize(model.eval(), (x,), **({"backend": backends.get("x86")} | options))


def noted(model: nn.Module, x: Tensor, **options: Any) -> tuple[Any, str, str]:
    """Return the result, the site and the reason of its one remark, which the warning holds too."""
    with warned("scale") as caught:
        result = quantize(model, x, **options)
    (remark,) = result.report.scales
    (warning,) = [str(each.message) for each in caught if "do not fit" in str(each.message)]
    assert f"{remark.site}: {remark.reason}" in warning
    words = re.sub(r"[\s│]+", "", str(result.report))
    assert "scaledoesnotfit" in words
    assert remark.site.split()[0] in words
    return result, remark.site, remark.reason


def sqnr(expected: Tensor, given: Tensor) -> float:
    noise = (expected.double() - given.double()).square().sum()
    return float(10 * torch.log10(expected.double().square().sum() / noise))


def test_nothing_is_said_of_what_fits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        result = quantize(Layer(1e-12), X * 1e-12)
    assert result.report.scales == ()
    assert "does not fit" not in str(result.report)


def test_calibration_of_zeros_leaves_room_for_what_comes() -> None:
    model = Layer()
    result, site, reason = noted(model, torch.zeros_like(X))
    assert site == "fc (linear).input"
    assert "nothing but zeros, so its range is a guess, [-8, 8]" in reason
    assert sqnr(model(X), result.module(X)) > 25
    assert not result.module(torch.zeros_like(X)).any()


def test_calibration_of_one_value_is_named() -> None:
    model = Layer()
    _, site, reason = noted(model, torch.full_like(X, 0.5))
    assert site == "fc (linear).input"
    assert "calibration saw only 0.5, so values beyond it are clipped" in reason


def test_a_constant_of_the_model_is_no_calibration() -> None:
    class Scaled(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("ones", torch.ones(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.fc(x) + self.fc(self.ones)
            return result

    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        assert quantize(Scaled(), X).report.scales == ()


def test_a_dead_channel_and_weights_of_zeros_are_exact_and_not_worth_a_word() -> None:
    model, x = Layer(bias=True), X.clone()
    x[:, 3] = 0
    with torch.no_grad():
        model.fc.weight[1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        for config in ("static", "dynamic", "weight-only"):
            result = quantize(model, x, config=config)
            assert sqnr(model(x), result.module(x)) > 35
            assert torch.allclose(result.module(x)[:, 1], model.fc.bias[1])


def test_a_tiny_channel_beside_others_keeps_its_precision() -> None:
    model = Layer()
    with torch.no_grad():
        model.fc.weight[2] *= 1e-25
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        result = quantize(model, X)
    expected, given = model(X), result.module(X)
    for channel in range(4):
        assert sqnr(expected[:, channel], given[:, channel]) > 30


def test_values_below_the_floor_are_named() -> None:
    """1e-38 is beside the smallest normal number: not even one step is left of it."""
    with warned("scale", site="fc (linear).weight", says=r"2 tensor\(s\)"):
        result = quantize(Layer(), X * 1e-38)
    of_input, of_weight = sorted(result.report.scales, key=lambda each: each.site)
    assert of_input.site == "fc (linear).input"
    text = "the floor under its scale is 1.18e-38, so values below 5.88e-39 become zero"
    assert text in of_input.reason
    assert of_weight.site == "fc (linear).weight"
    assert "the least scale its input allows is 1 in 4 of 4 channels" in of_weight.reason


def test_a_floor_that_was_asked_for_is_named() -> None:
    model = Layer(1e-3)
    config = quantfx.Config().type(nn.Linear, weights={"eps": 2**-12})
    _, site, reason = noted(model, X, config=config)
    assert site == "fc (linear).weight"
    assert "the floor under its scale is 0.000244 in 4 of 4 channels" in reason


def test_a_product_below_the_normal_numbers_raises_the_scale_of_the_weight() -> None:
    """Kernels then compute what the q/dq graph does, in the channels that keep their precision."""
    model, x = Layer(bias=True), X * 1e-20
    with torch.no_grad():
        model.fc.weight[2] *= 1e-25
        model.fc.bias.fill_(1e-20)
    result, site, reason = noted(model, x)
    assert site == "fc (linear).weight"
    assert "the least scale its input allows is " in reason
    assert "in 1 of 4 channels" in reason
    assert sqnr(model(x), result.module(x)) > 35
    assert sqnr(result.quantized(x), result.module(x)) > 60


@pytest.mark.parametrize(("size", "lost"), [(1e-3, False), (1e-6, True), (1e-9, True)])
def test_weights_that_half_precision_loses_are_named(size: float, lost: bool) -> None:
    if not lost:
        assert quantize(Layer(size), X, config="fp16").report.scales == ()
        return
    _, site, reason = noted(Layer(size), X, config="fp16")
    assert site == "fc.weight"
    assert "is lost in torch.float16, whose normal numbers end at 6.1e-05" in reason


def test_large_values_stay_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In plans; torch's operators refuse them (tests/backends/onednn/test_overflow_reason.py)."""
    monkeypatch.setenv("QUANTFX_KERNELS", "direct")
    x = X.clone()
    x[0, 0], x[1, 1] = 3e38, -3e38
    model = Layer(1e-3)
    for observer in ("mse", "histogram", "min_max"):
        backend = backends.get("x86", observer=observer)
        result = quantize(model, x, backend=backend)
        assert torch.isfinite(result.quantized(x)).all()
        assert sqnr(model(x), result.module(x)) > 30


def test_rows_survive_saving_and_json() -> None:
    result, site, _ = noted(Layer(), torch.zeros_like(X))
    again = Report.from_dict(result.report.to_dict())
    assert again == result.report
    assert again.scales[0].site == site
    older = {key: value for key, value in result.report.to_dict().items() if key != "scales"}
    assert Report.from_dict(older).scales == ()
