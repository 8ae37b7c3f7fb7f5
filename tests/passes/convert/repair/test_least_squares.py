"""Rounding together errs less at the outputs, keeps to the range and to pair bounds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from quantfx.passes.convert.repair.least_squares import Moments, round_together
from quantfx.passes.quant.qparams import Pairing, saturates
from quantfx.passes.quant.spec import QuantSpec

S8 = QuantSpec(torch.int8, -128, 127, symmetric=True, axis=0, observer="min_max")


def inputs(groups: int, length: int, rows: int = 4000) -> Tensor:
    """Return positive inputs that vary together, float64, ``(groups, rows, length)``."""
    draw = torch.Generator().manual_seed(length)
    mixed = torch.randn(groups, rows, length, generator=draw, dtype=torch.float64)
    return (mixed @ torch.rand(groups, length, length, generator=draw).double()).relu()


def second(x: Tensor) -> Tensor:
    return x.transpose(1, 2) @ x / x.shape[1]


def steps(*shape: int) -> Tensor:
    draw = torch.Generator().manual_seed(sum(shape))
    return 30 * torch.randn(*shape, generator=draw).clamp(-4, 4)


def power(error: Tensor, moments: Tensor) -> float:
    groups, length = len(moments), moments.shape[1]
    rows = error.double().reshape(groups, -1, length)
    return float(torch.einsum("gok,gkl,gol->", rows, moments, rows))


@pytest.mark.parametrize("shape", [(8, 24), (8, 6, 2, 2), (6, 1, 3, 3)])
def test_outputs_err_less_than_with_the_nearest_integers(shape: tuple[int, ...]) -> None:
    groups = shape[0] if shape[1] == 1 else 1
    weight = steps(*shape)
    moments = second(inputs(groups, weight[0].numel()))
    found = round_together(weight, Moments(moments, 0.01), S8)
    assert torch.equal(found, found.round())
    assert found.shape == weight.shape
    assert (found >= -128).all()
    assert (found <= 127).all()
    assert power(found - weight, moments) < 0.4 * power(weight.round() - weight, moments)


def test_without_correlation_the_nearest_integers_are_the_best() -> None:
    weight = steps(4, 9)
    assert torch.equal(round_together(weight, Moments(torch.eye(9)[None], 0.1), S8), weight.round())


def test_of_few_weights_it_is_near_the_best_there_is() -> None:
    weight = steps(40, 5)
    moments = second(inputs(1, 5))
    found = power(round_together(weight, Moments(moments, 1e-6), S8) - weight, moments)
    best = 0.0
    for row in weight:
        around = (row.floor() + torch.tensor(up) for up in itertools.product((0, 1), repeat=5))
        best += min(power(each - row, moments) for each in around)
    assert found < 3 * best
    assert power(weight.round() - weight, moments) > 4 * best


@pytest.mark.parametrize("bound", ["blocks", "adjacent"])
def test_pair_bounds_hold(bound: Pairing) -> None:
    spec = QuantSpec(
        torch.int8, -128, 127, symmetric=True, axis=0, observer="min_max", pair_bound=bound
    )
    draw = torch.Generator().manual_seed(3)
    weight = 63.5 + 0.9 * torch.rand(64, 24, generator=draw)  # the nearest of two sum to 128
    weight = weight.reshape(64, 12, 2, 1) if bound == "blocks" else weight
    moments = second(inputs(1, 24, rows=26))
    found = round_together(weight, Moments(moments, 1e-4), spec)
    assert not saturates(found.to(torch.int8), 255, bound).any()
    free = round_together(weight, Moments(moments, 1e-4), S8)
    assert saturates(free.clamp(-128, 127).to(torch.int8), 255, bound).any()


def test_inputs_in_blocks_and_inputs_that_are_always_zero() -> None:
    weight = steps(3, 7)
    x = inputs(2, 4)
    x[:, :, 1] = 0
    x[1, :, 3] = 0  # what fills up the second block
    moments = second(x)
    found = round_together(weight, Moments(moments, 0.01), S8)
    for block, columns in enumerate((slice(0, 4), slice(4, 7))):
        alone = Moments(
            moments[block : block + 1, : columns.stop - columns.start][
                :, :, : columns.stop - columns.start
            ],
            0.01,
        )
        assert torch.equal(found[:, columns][:, 1], weight[:, columns][:, 1].round())
        if block == 0:
            assert torch.equal(found[:, columns], round_together(weight[:, columns], alone, S8))
    nothing = round_together(weight, Moments(torch.zeros(2, 4, 4), 0.01), S8)
    assert torch.equal(nothing, weight.round())


def test_pairs_across_blocks_of_odd_size() -> None:
    """The second block begins with the second channel of a pair."""
    spec = QuantSpec(
        torch.int8, -128, 127, symmetric=True, axis=0, observer="min_max", pair_bound="blocks"
    )
    weight = 63.5 + 0.9 * torch.rand(64, 10, generator=torch.Generator().manual_seed(3))
    moments = Moments(second(inputs(2, 5, rows=7)), 1e-4)
    found = round_together(weight, moments, spec)
    within = found[:, [0, 1, 2, 3, 6, 7, 8, 9]]  # but for the pair that the blocks part
    assert not saturates(within.to(torch.int8), 255, "blocks").any()
    free = round_together(weight, moments, S8)[:, [0, 1, 2, 3, 6, 7, 8, 9]]
    assert saturates(free.clamp(-128, 127).to(torch.int8), 255, "blocks").any()


def test_steps_of_different_sizes_in_a_row() -> None:
    """Errors pass from a group of large steps to one of small steps, and are weighed as they are."""
    spec = QuantSpec(torch.int8, -8, 7, symmetric=True, axis=0, observer="min_max", group=8)
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 24, generator=draw) * torch.tensor([1.0, 2.0, 0.5]).repeat_interleave(8)
    scale = (weight.reshape(6, 3, 8).abs().amax(2) / 7).repeat_interleave(8, 1)
    moments = second(inputs(1, 24))
    steps, given = weight / scale, Moments(moments, 0.01)
    found = round_together(steps, given, spec, scale)
    nearest = steps.round().clamp(-8, 7)
    assert torch.equal(found, found.round())
    assert ((found >= -8) & (found <= 7)).all()
    lost = power((nearest - steps) * scale, moments)
    assert power((found - steps) * scale, moments) < 0.4 * lost
    # As if all steps were of one size, errors would be passed on in the wrong unit.
    wrong = round_together(steps, given, spec)
    assert power((wrong - steps) * scale, moments) > 2 * power((found - steps) * scale, moments)
    # Equal scales are what no scales are.
    same = round_together(steps, given, spec, torch.full_like(steps, 0.5))
    assert torch.equal(same, wrong)
