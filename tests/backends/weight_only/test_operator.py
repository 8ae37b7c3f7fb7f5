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
@pytest.mark.parametrize("inputs", [1, 15, 16, 33, 77, 768, 2048, 2049, 4128])
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
@pytest.mark.parametrize("group", [32, 96, 2080])
def test_int8_rows_in_groups(group: int) -> None:
    for channels in CHANNELS:
        values, scales, _ = drawn(8, channels, group * 3, group)
        for rows in ROWS:
            x, bias = torch.randn(rows, group * 3), torch.randn(channels) if rows % 2 else None
            found = weight_linear()(x, values, scales, None, bias)
            assert_near(found, x, dequantized(values, scales, None), bias)


@pytest.mark.usefixtures("with_kernels")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("instructions", [False, True])
def test_half_precision_rounds_results_and_not_weights(
    dtype: torch.dtype, instructions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With instructions for bfloat16 torch multiplies in bfloat16, as it can without them."""
    monkeypatch.setattr(operator, "_computes_in_bfloat16", lambda: instructions)
    for group in (64, 32):
        values, scales, _ = drawn(8, 37, 64, group)
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


@pytest.mark.usefixtures("with_kernels")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-36, 1e-20, 1e20, 3e38])
def test_a_row_of_any_size(bits: int, size: float) -> None:
    """The last numbers are next to the greatest and smallest floats, whose inverses are none."""
    values, scales, _ = drawn(bits, 6, 96, 96)
    weight = dequantized(values, scales, None) / 2**12  # so that products are numbers
    stored = pack_nibbles(values) if bits == 4 else values
    x = torch.linspace(-1, 1, 96) * size
    found = weight_linear()(x, stored, scales / 2**12, None, None)
    exact = weight @ x.double()
    reach = weight.abs() @ x.double().abs()
    # Below the normal numbers floats are steps of 2^-149, of each product.
    assert bool(((found.double() - exact).abs() <= 1e-6 * reach + 96 * 2.0**-149).all())


@pytest.mark.skipif(kernels().library is None, reason=kernels().reason)
@pytest.mark.parametrize(
    ("x", "by_integers"),
    [
        (torch.linspace(-1, 1, 64), True),
        (torch.zeros(64), True),
        (torch.full((64,), float("inf")), False),
        (torch.full((64,), float("nan")), False),
        (torch.full((64,), 1e-42), False),
        (torch.ones(2, 64), None),
    ],
    ids=["a row", "zeros", "infinite", "not a number", "tiny", "two rows"],
)
def test_one_row_is_multiplied_as_integers_where_integers_can_stand_for_it(
    x: Tensor, by_integers: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, answers = kernels().library, []

    class Watched:
        qfx_weight_linear = staticmethod(library.qfx_weight_linear)  # type: ignore[union-attr]

        @staticmethod
        def qfx_weight_one_row(*given: object) -> bool:
            answers.append(bool(library.qfx_weight_one_row(*given)))  # type: ignore[union-attr]
            return answers[-1]

    monkeypatch.setattr(operator, "kernels", lambda: Loaded(library=Watched()))  # type: ignore[arg-type]
    values, scales, _ = drawn(8, 6, 64, 64)
    weight_linear()(x, values, scales, None, None)
    assert answers == ([] if by_integers is None else [by_integers])


@pytest.mark.usefixtures("with_kernels")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_infinities_and_what_is_no_number_go_through(bits: int, value: float) -> None:
    values, scales, _ = drawn(bits, 6, 64, 64)
    values[0, 5], values[1, 5], values[2, 5] = 3, -3, 0
    stored = pack_nibbles(values) if bits == 4 else values
    x = torch.randn(64)
    x[5] = value
    expected = dequantized(values, scales, None).float() @ x
    torch.testing.assert_close(
        weight_linear()(x, stored, scales, None, None), expected, equal_nan=True
    )


@pytest.mark.usefixtures("with_kernels")
def test_small_values_beside_a_large_one_keep_their_digits() -> None:
    """What a large value adds is left out by a weight of zero."""
    values, scales, _ = drawn(8, 6, 64, 64)
    values[:, 5] = 0
    x = torch.randn(64)
    x[5] = 1000.0
    found = weight_linear()(x, values, scales, None, None)
    weight = dequantized(values, scales, None)
    reach = weight.abs() @ x.double().abs()
    # 31 bits below 1000 there is half a millionth.
    assert bool(((found.double() - weight @ x.double()).abs() <= 1e-6 * reach).all())


@pytest.mark.parametrize("rows", [1, 5])
def test_threads_change_nothing(rows: int) -> None:
    values, scales, zeros = drawn(4, 37, 256, 32)
    x, before = torch.randn(rows, 256), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(weight_linear()(x, pack_nibbles(values), scales, zeros, None))
    torch.set_num_threads(before)
    assert torch.equal(*found)
