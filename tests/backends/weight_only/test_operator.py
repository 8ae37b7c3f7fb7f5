"""The operator computes what dequantize and linear do, with its kernels and without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantfx.backends.checks.compiled import Loaded
from quantfx.backends.weight_only import operator
from quantfx.backends.weight_only.library import kernels
from quantfx.backends.weight_only.operator import FEW_ROWS, weight_linear
from quantfx.passes.quant.nibbles import pack_nibbles

# Few rows go four, two and one at a time; more are multiplied in blocks.
ROWS = (0, 1, 2, 3, 7, FEW_ROWS, FEW_ROWS + 1)
CHANNELS = (1, 3, 37)


def drawn(bits: int, channels: int, inputs: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return integers, scales and zero points."""
    torch.manual_seed(bits * channels * inputs)
    limit = 2 ** (bits - 1)
    values = torch.randint(-limit, limit, (channels, inputs)).to(torch.int8)
    shape = channels, inputs // group
    zeros = torch.randint(-8, 8, shape).to(torch.int8)
    return values, torch.rand(shape) + 0.1, zeros


def dequantized(values: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
    parted = values.double().reshape(*scales.shape, -1)
    if zeros is not None:
        parted = parted - zeros.unsqueeze(2)
    return (parted * scales.double().unsqueeze(2)).reshape(values.shape)


def assert_near(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Float rounding grows with the sum of magnitudes, not with what is left of it."""
    exact = x.double() @ weight.t() + (0 if bias is None else bias.double())
    reach = x.double().abs() @ weight.abs().t() + 1
    assert found.shape == exact.shape
    assert bool(((found.double() - exact).abs() <= 1e-6 * reach).all())


@pytest.fixture(params=["kernels", "torch"])
def with_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with the kernels, and as without a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(operator, "kernels", lambda: Loaded("none"))
    elif kernels().library is None:
        pytest.skip(kernels().reason)


@pytest.mark.usefixtures("with_kernels")
@pytest.mark.parametrize("inputs", [1, 15, 16, 33, 77, 768])
def test_int8_rows_of_any_length(inputs: int) -> None:
    for channels in CHANNELS:
        values, scales, _ = drawn(8, channels, inputs, inputs)
        for rows in ROWS:
            x, bias = torch.randn(rows, inputs), torch.randn(channels) if rows % 2 else None
            found = weight_linear()(x, values, scales.flatten(), None, bias)
            assert_near(found, x, dequantized(values, scales, None), bias)


@pytest.mark.usefixtures("with_kernels")
@pytest.mark.parametrize("group", [32, 64, 128, 96])
@pytest.mark.parametrize("affine", [False, True])
def test_int4_rows_in_groups(group: int, affine: bool) -> None:
    for channels in CHANNELS:
        values, scales, zeros = drawn(4, channels, group * 3, group)
        given = zeros if affine else None
        for rows in ROWS:
            x, bias = torch.randn(rows, group * 3), torch.randn(channels) if rows % 2 else None
            found = weight_linear()(x, pack_nibbles(values), scales, given, bias)
            assert_near(found, x, dequantized(values, scales, given), bias)


@pytest.mark.usefixtures("with_kernels")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    values, scales, _ = drawn(8, 37, 64, 64)
    for rows in (2, 20):
        x = torch.randn(rows, 64).to(dtype)
        found = weight_linear()(x, values, scales, None, None)
        exact = x.double() @ dequantized(values, scales, None).t()
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=2**-6, atol=0.05)


@pytest.mark.usefixtures("with_kernels")
def test_rows_come_in_any_dimensions_and_order() -> None:
    values, scales, _ = drawn(8, 5, 48, 48)
    weight = dequantized(values, scales, None)
    for x in (
        torch.randn(48),
        torch.randn(2, 3, 48),
        torch.randn(48, 6).t(),
        torch.randn(4, 1, 48),
    ):
        found = weight_linear()(x, values, scales, None, None)
        assert found.shape == (*x.shape[:-1], 5)
        assert_near(found.reshape(-1, 5), x.reshape(-1, 48), weight, None)


def test_threads_change_nothing() -> None:
    values, scales, zeros = drawn(4, 37, 256, 32)
    x, before = torch.randn(5, 256), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(weight_linear()(x, pack_nibbles(values), scales, zeros, None))
    torch.set_num_threads(before)
    assert torch.equal(*found)
