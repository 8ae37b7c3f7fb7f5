from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quantfx.passes.errors import CalibrationError, SpecError
from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.observers.weight import WeightObserver
from quantfx.passes.quant.qparams import saturates
from quantfx.passes.quant.spec import PairBound, QuantSpec
from tests.refusals import refused


def spec(pair_bound: PairBound = "none") -> QuantSpec:
    return QuantSpec(
        torch.int8, -128, 127, symmetric=True, axis=0, observer="weight_mse", pair_bound=pair_bound
    )


def quantize(weight: Tensor, scale: Tensor) -> Tensor:
    shape = (-1, *[1] * (weight.dim() - 1))
    return (weight / scale.reshape(shape)).round().clamp(-128, 127)


def error(weight: Tensor, scale: Tensor) -> Tensor:
    shape = (-1, *[1] * (weight.dim() - 1))
    return (quantize(weight, scale) * scale.reshape(shape) - weight).square().flatten(1).sum(1)


def scales(weight: Tensor, pair_bound: PairBound = "none") -> Tensor:
    observer = WeightObserver(spec(pair_bound))
    observer(weight)
    return observer.calculate_qparams().scale


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (16, 8, 3, 3), (32, 64), (4, 4, 3)])
@pytest.mark.parametrize("tail", [1.0, 5.0])
def test_never_worse_than_the_usual_scale(shape: tuple[int, ...], tail: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    weight.flatten(1)[:, 0] *= tail
    usual = MinMaxObserver(QuantSpec(torch.int8, -128, 127, True, 0, "min_max"))
    usual(weight)
    mine, theirs = error(weight, scales(weight)), error(weight, usual.calculate_qparams().scale)
    assert bool((mine <= theirs * 1.0001).all())
    assert float((mine / theirs).mean()) < 0.95


def test_finds_the_grid_a_channel_lies_on() -> None:
    integers = torch.tensor([[-127.0, 5, 64, 3], [10, -127, 1, 2]])
    grid = torch.tensor([0.01, 0.03])
    torch.testing.assert_close(scales(integers * grid[:, None]), grid)


def test_large_weights_get_fewer_candidates_and_still_a_good_scale() -> None:
    weight = torch.randn(64, 16384, generator=torch.Generator().manual_seed(0))
    few = error(weight, scales(weight))
    dense = torch.stack([scales(row[None, :4096]) for row in weight[:4]])
    assert dense.shape == (4, 1)
    usual = weight.abs().amax(1) / 127.5
    assert bool((few < error(weight, usual)).all())


@pytest.mark.parametrize("pairing", ["blocks", "adjacent"])
def test_the_pair_bound_holds(pairing: PairBound) -> None:
    weight = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))
    integers = quantize(weight, scales(weight, pairing)).to(torch.int8)
    assert pairing != "none"
    assert not bool(saturates(integers, 255, pairing).any())
    assert bool(saturates(quantize(weight, scales(weight)).to(torch.int8), 255, pairing).any())


def test_zero_channels_get_the_scale_of_the_largest() -> None:
    weight = torch.randn(3, 4)
    weight[1] = 0
    found = scales(weight)
    assert found[1] == weight.abs().max() / 127.5
    assert torch.equal(scales(torch.zeros(2, 4)), torch.full((2,), 1 / 127.5))


def test_zero_channels_keep_a_floor_that_was_asked_for() -> None:
    observer = WeightObserver(replace(spec(), eps=2**-12))
    observer(torch.zeros(2, 4))
    assert torch.equal(observer.calculate_qparams().scale, torch.full((2,), 2.0**-12))


@pytest.mark.parametrize("pair_bound", ["none", "adjacent"])
@pytest.mark.parametrize("exponent", [-110, -60, -20, 40, 120])
def test_the_search_finds_the_same_whatever_the_size(exponent: int, pair_bound: PairBound) -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    size = 2.0**exponent
    assert torch.equal(scales(weight * size, pair_bound), scales(weight, pair_bound) * size)


@pytest.mark.parametrize("pair_bound", ["none", "blocks"])
def test_scales_of_the_largest_and_smallest_floats_are_numbers(pair_bound: PairBound) -> None:
    sizes = torch.tensor([3.3e38, 1e-38, 1e-45, 1.0])
    weight = torch.ones(4, 8) * sizes[:, None]
    found = scales(weight, pair_bound)
    assert torch.isfinite(found).all()
    assert (found >= 2**-126).all()
    assert torch.isfinite(quantize(weight, found) * found[:, None]).all()


def test_bad_specs_and_tensors_are_refused() -> None:
    with refused("spec-observer", SpecError, site="weight_mse"):
        QuantSpec(torch.uint8, 0, 255, observer="weight_mse")
    with refused("never-run", CalibrationError):
        WeightObserver(spec()).calculate_qparams()
    with refused("not-finite", CalibrationError):
        WeightObserver(spec())(torch.tensor([[1.0, float("nan")]]))
