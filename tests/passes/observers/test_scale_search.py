from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from quantfx.passes.observers.scale_search import Block, IntegerRange, best_scales, in_blocks

S8 = IntegerRange(-128, 127)
KINDS = ("normal", "uniform", "heavy")


def rows_of(kind: str, channels: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(channels, length, generator=generator)
    if kind == "uniform":
        rows = torch.rand(channels, length, generator=generator) - 0.5
    return rows**3 if kind == "heavy" else rows


def error(rows: Tensor, scale: Tensor, integers: IntegerRange) -> Tensor:
    steps = rows.double() / scale.double()[:, None]
    off = (steps.round().clamp(integers.low, integers.high) - steps) * scale.double()[:, None]
    return off.square().sum(1)


def found(rows: Tensor, integers: IntegerRange, around: float = 0.0) -> Tensor:
    nothing = torch.zeros(len(rows))
    return best_scales(Block(rows, nothing, nothing + around), integers)


def best_of_a_grid(rows: Tensor, integers: IntegerRange, least: float = 0.0) -> Tensor:
    """The error under the best of 103 scales from half to 1.01 times the one that clips nothing."""
    whole = rows.abs().amax(1) / integers.high
    factors = [1.0, *torch.linspace(0.5, 1.01, 103).tolist()]
    errors = [error(rows, (whole * each).clamp(min=least), integers) for each in factors]
    return torch.stack(errors).amin(0)


@pytest.mark.parametrize("integers", [S8, IntegerRange(-64, 63), IntegerRange(-8, 7)])
@pytest.mark.parametrize("length", [9, 64, 576, 2048])
@pytest.mark.parametrize("kind", KINDS)
def test_no_worse_than_a_grid_of_a_hundred(kind: str, length: int, integers: IntegerRange) -> None:
    rows = rows_of(kind, 64, length)
    ratio = error(rows, found(rows, integers), integers) / best_of_a_grid(rows, integers)
    assert float(ratio.mean()) <= 1.005


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_holds_and_the_best_above_it_is_found(kind: str) -> None:
    rows = rows_of(kind, 64, 64)
    limit = float(rows.abs().max()) / 100
    scale = found(rows, S8, around=limit)
    assert bool((scale >= limit).all())
    assert float((error(rows, scale, S8) / best_of_a_grid(rows, S8, limit)).max()) <= 1.0001


def test_an_outlier_is_clipped_by_what_the_others_gain() -> None:
    """The least of ``length * scale^2 / 12 + (outlier - 127.5 * scale)^2``."""
    length, outlier = 16384, 6.5
    rows = rows_of("normal", 4, length)
    rows[:, 0] = outlier
    best = 127.5 * outlier / (127.5**2 + length / 12)
    assert best < 0.93 * outlier / 127
    torch.testing.assert_close(found(rows, S8), torch.full((4,), best), rtol=0.02, atol=0)


@pytest.mark.parametrize("length", [1, 9, 500, 40_000])
def test_blocks_come_back_in_order(length: int) -> None:
    channels = 5000
    places = torch.arange(channels)
    assert torch.equal(in_blocks(length, channels, lambda part: places[part]), places)


def test_no_channels_are_one_empty_block() -> None:
    assert in_blocks(3, 0, lambda part: torch.zeros(0)[part]).shape == (0,)


def test_many_blocks_are_searched_by_as_many_threads_as_torch_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    both = threading.Barrier(2, timeout=60)

    def search(part: slice) -> Tensor:
        both.wait()
        return torch.zeros(part.stop - part.start)

    in_blocks(2**15 - 1, 8, search)


def test_few_blocks_are_searched_where_they_are_asked_for() -> None:
    threads: list[int] = []

    def search(part: slice) -> Tensor:
        threads.append(threading.get_ident())
        return torch.zeros(part.stop - part.start)

    in_blocks(2**15 - 1, 2, search)
    assert set(threads) == {threading.get_ident()}
