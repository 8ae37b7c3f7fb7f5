from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantfx.passes.observers.channel import ByChannel
from quantfx.passes.observers.channel_record import BINS, ChannelRecord
from quantfx.passes.quant.spec import QuantSpec


def batches(seed: int) -> list[Tensor]:
    """Batches whose ranges grow, with channels a thousand times apart and one that is silent."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([0.01, 0.1, 1.0, 10.0, 0.0])
    grown = [torch.randn(2, 50, 5, generator=generator) * size * grow for grow in (0.3, 1.0, 7.0)]
    return [each + size for each in grown]


def recorded(xs: list[Tensor]) -> ChannelRecord:
    record = ChannelRecord()
    for x in xs:
        record.observe(x)
    return record


@pytest.mark.parametrize("seed", range(3))
def test_size_and_ends_are_exact(seed: int) -> None:
    xs = batches(seed)
    rows, record = torch.cat(xs).flatten(0, 1), recorded(xs)
    torch.testing.assert_close(record.size(), rows.double().pow(4).mean(0).pow(0.25))
    assert torch.equal(record.low, rows.amin(0))
    assert torch.equal(record.high, rows.amax(0))
    assert record.counts.sum(1).tolist() == [len(rows)] * 5


@pytest.mark.parametrize("seed", range(3))
def test_growing_range_counts_as_if_known_before(seed: int) -> None:
    xs = batches(seed)
    assert torch.equal(recorded(xs).counts, recorded([torch.cat(xs)]).counts)
    assert torch.equal(recorded(xs).counts, recorded(xs[::-1]).counts)


@pytest.mark.parametrize("seed", range(3))
def test_histogram_is_that_of_the_divided_tensor(seed: int) -> None:
    """No value is counted further from its place than a bin of its own channel is wide."""
    xs, divisor = batches(seed), torch.tensor([0.02, 0.1, 3.0, 5.0, 1.0])
    x = torch.cat(xs) / divisor
    histogram, low, high = recorded(xs).histogram(divisor, 256)
    torch.testing.assert_close((low, high), torch.aminmax(x))
    exact = torch.histc(x, 256, float(low), float(high)).cumsum(0)
    widest = float((4 * torch.cat(xs).abs().flatten(0, 1).amax(0) / BINS / divisor).max())
    shift = int(widest / float(high - low) * 256) + 2
    counted = histogram.cumsum(0)
    assert bool((counted[shift:] >= exact[:-shift] - 1e-2).all())
    assert bool((counted[:-shift] <= exact[shift:] + 1e-2).all())


def test_undivided_observer_gives_the_qparams_of_its_search() -> None:
    spec = QuantSpec(torch.uint8, 0, 255)
    observer = ByChannel("histogram")(spec, "x")
    whole = ByChannel("histogram")(spec, "x").whole
    for x in batches(0):
        observer(x)
        whole(x)
    assert torch.equal(observer.calculate_qparams().scale, whole.calculate_qparams().scale)
    divided = observer.divide_by(torch.full((5,), 2.0)).calculate_qparams()
    torch.testing.assert_close(
        divided.scale * 2, whole.calculate_qparams().scale, rtol=0.05, atol=0
    )
