"""Where torch 2.13's FX graph mode, or a kernel of it, is wrong, and the native backend is not.

Each test has two halves: the error there, which says when torch mends it, and the one here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import (
    QConfigMapping,
    float_qparams_weight_only_qconfig,
    get_default_qconfig_mapping,
)
from torch.ao.quantization.backend_config.native import get_test_only_legacy_native_backend_config
from torch.ao.quantization.qconfig import QConfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from quantfx import backends
from quantfx.backends.quantized.quantized_tensors import per_tensor
from tests import unchecked
from tests.backends.fx_graph_mode import engine
from tests.refusals import warned

SMALL = 0.05  # of the largest value: what int8 may cost
WRONG = 0.1


def error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def by_fx(
    model: nn.Module, x: Any, mapping: QConfigMapping | None = None, **options: Any
) -> Tensor:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        chosen = mapping or get_default_qconfig_mapping("x86")
        prepared: Any = prepare_fx(model, chosen, (x,), **options)
        prepared(x)
        converted: Tensor = convert_fx(prepared, **options)(x)
    return converted


def by_quantfx(model: nn.Module, x: Any, strict: bool = True, **options: Any) -> Any:
    backend = backends.get("native", **options)
    result = unchecked.quantize(model, (x,), backend=backend, strict=strict)
    with torch.no_grad():
        return result, result.module(x)


def images(*shape: int) -> Tensor:
    return torch.randn(*(shape or (4, 8, 8, 8)), generator=torch.Generator().manual_seed(0))


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("layer", [nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid(), nn.Softmax(1)])
def test_an_input_is_not_quantized_as_the_result_will_be(layer: nn.Module) -> None:
    model, x = nn.Sequential(layer).eval(), images() * 3
    expected = layer(x)
    assert error(by_fx(model, x), expected) > WRONG
    assert error(by_quantfx(model, x)[1], expected) < SMALL


def test_prelu_does_not_clip_positive_values() -> None:
    model, x = nn.Sequential(nn.Conv2d(8, 8, 1), nn.PReLU()).eval(), images()
    with torch.no_grad():
        expected = model(x)
    assert error(by_fx(model, x), expected) > WRONG
    assert error(by_quantfx(model, x)[1], expected) < SMALL


@pytest.mark.parametrize("slope", [-0.7, 0.0, 0.25, 1.5])
def test_prelu_takes_weights_of_every_kind(slope: float) -> None:
    model, x = nn.PReLU(init=slope).eval(), images()
    result, got = by_quantfx(model, x)
    assert error(got, model(x).detach()) < SMALL
    assert all(each.within(1, 0) for each in result.compare_sites())


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_bags_are_not_summed_up_whatever_their_mode(mode: str) -> None:
    model = nn.Sequential(nn.EmbeddingBag(50, 16, mode=mode)).eval()
    x = torch.randint(0, 50, (6, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
    mapping = QConfigMapping().set_global(float_qparams_weight_only_qconfig)
    assert error(by_fx(model, x, mapping), expected) > 1
    backend = backends.get("native", target="any", config="weight-only")
    result = unchecked.quantize(model, (x,), backend=backend, strict=False)
    (skipped,) = (row for row in result.report.skipped if "embedding_bag" in row.op)
    assert "mode is" in skipped.reason
    assert torch.equal(result.module(x), expected)


def test_an_instance_norm_with_statistics_uses_them() -> None:
    model = nn.Sequential(nn.InstanceNorm2d(8, track_running_stats=True)).eval()
    norm: Any = model[0]
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(4.0)
    x = images()
    expected = model(x)
    assert error(by_fx(model, x), expected) > WRONG
    result, got = by_quantfx(model, x, strict=False)
    assert not result.report.sites
    assert torch.equal(got, expected)


def test_a_factor_of_a_sum_is_not_lost() -> None:
    model, x = Function(lambda x: torch.add(x, x.transpose(2, 3), alpha=3)), images()
    expected = model(x)
    assert error(by_fx(model, x), expected) > WRONG
    assert error(by_quantfx(model, x)[1], expected) < SMALL


def test_two_calls_of_a_layer_have_ranges_of_their_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            value: Tensor = self.layer(self.layer(x) * 0.01)
            return value

    torch.manual_seed(0)
    model, x = Twice().eval(), images(32, 16) * 20
    with torch.no_grad():
        expected = model(x)
    assert error(by_fx(model, x), expected) > WRONG
    assert error(by_quantfx(model, x)[1], expected) < SMALL


@pytest.mark.parametrize("shape", [(8, 16, 3), (16, 8, 2), (8, 8, 2)])
def test_transposed_convolutions_are_right(shape: tuple[int, int, int]) -> None:
    inputs, outputs, kernel = shape
    torch.manual_seed(0)
    model, x = nn.ConvTranspose2d(inputs, outputs, kernel, 2).eval(), images(2, inputs, 6, 6)
    with torch.no_grad():
        expected = model(x)
    result, got = by_quantfx(model, x)
    assert error(got, expected) < SMALL
    assert all(each.within(1, 0) for each in result.compare_sites())


def test_torch_still_computes_some_transposed_convolutions_wrongly() -> None:
    weight = per_tensor(torch.randint(-64, 64, (8, 16, 3, 3), dtype=torch.int8), 0.01, 0)
    x = per_tensor(torch.randint(0, 256, (2, 8, 6, 6), dtype=torch.uint8), 0.02, 100)
    expected = F.conv_transpose2d(x.dequantize(), weight.dequantize(), stride=2)
    with engine("onednn"):
        packed = torch.ops.quantized.conv_transpose2d_prepack(
            weight, None, [2, 2], [0, 0], [0, 0], [1, 1], 1
        )
        got = torch.ops.quantized.conv_transpose2d(x, packed, 0.2, 128).dequantize()
    assert error(got, expected) > WRONG


def test_clamps_on_qnnpack_keep_the_layout_in_mind() -> None:
    x = per_tensor(torch.arange(256, dtype=torch.uint8).reshape(1, 4, 8, 8), 0.1, 100)
    last = x.contiguous(memory_format=torch.channels_last)
    with engine("qnnpack"):
        wrong = torch.clamp(last, -1, 1).dequantize()
        assert error(wrong, x.dequantize().clamp(-1, 1)) > WRONG
        torch.manual_seed(0)
        model, images_ = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Hardtanh(-0.3, 0.3)).eval(), images()
        with torch.no_grad():
            expected = model(images_)
        result, got = by_quantfx(model, images_, engine="qnnpack")
    assert error(got, expected) < 0.1
    assert "aten.hardtanh" in {site.kernel for site in result.report.sites}


def test_averages_on_qnnpack_that_leave_padding_out_stay_float() -> None:
    model, x = nn.AvgPool2d(3, 2, 1, count_include_pad=False).eval(), images()
    quantized = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
    with engine("qnnpack"):
        assert error(model(quantized).dequantize(), model(x)) > WRONG
        with warned("no-kernel", site="avg_pool2d"):
            _, got = by_quantfx(model, x, strict=False, engine="qnnpack")
        assert error(got, model(x)) < SMALL


def test_floor_division_runs() -> None:
    model, x = Function(lambda x: (x * 10) // 2), images()
    with pytest.raises((RuntimeError, NotImplementedError), match="floor_divide"):
        by_fx(model, x)
    result, got = by_quantfx(model, x)
    assert got.shape == x.shape
    assert "no quantized kernel" in str(result.report.skipped)


@pytest.mark.parametrize("method", ["sigmoid_", "tanh_"])
def test_methods_in_place_run(method: str) -> None:
    model = Function(lambda x: getattr(torch.relu(x) * 1.5, method)())
    x = images()
    expected = model(x)
    with pytest.raises((RuntimeError, NotImplementedError), match=method.strip("_")):
        by_fx(model, x)
    assert error(by_quantfx(model, x)[1], expected) < SMALL


def test_group_norm_reaches_its_kernel() -> None:
    model, x = Function(lambda x: F.group_norm(x, 2)), images()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared: Any = prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))
        prepared(x)
        there = convert_fx(prepared)
    assert "quantized.group_norm" not in there.code
    assert "quantized.group_norm" in by_quantfx(model, x)[0].module.code


def test_averages_of_volumes_work_in_half_precision() -> None:
    model, x = nn.Sequential(nn.AvgPool3d(2)).eval(), images(2, 4, 4, 4, 4)
    half: Any = QConfig(  # type: ignore[no-untyped-call]
        activation=torch.ao.quantization.PlaceholderObserver.with_args(dtype=torch.float16),
        weight=torch.ao.quantization.PlaceholderObserver.with_args(dtype=torch.float16),
    )
    config = get_test_only_legacy_native_backend_config()
    with pytest.raises(RuntimeError, match="Half"):
        by_fx(model, x, QConfigMapping().set_global(half), backend_config=config)
    _, got = by_quantfx(model, x, variant="legacy", config="static-fp16")
    assert error(got, model(x)) < 1e-3
