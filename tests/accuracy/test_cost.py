"""What recipes cost by the model, and by times that were measured."""

from __future__ import annotations

import pytest

from quantfx.accuracy.cost import CostModel, PricedSite, Times, with_times

# The first is bound by its MACs, the second by its weights.
WORK = PricedSite("conv2d", "conv2d", "static", macs=1_000_000, weight_bytes=400)
WEIGHTS = PricedSite("linear", "linear", "static", macs=100_000, weight_bytes=400_000)


def model(*sites: PricedSite, speed: float = 2.0) -> CostModel:
    return CostModel(sites, (0, 0), speed)


@pytest.mark.parametrize("speed", [2.0, 4.0])
def test_work_takes_longer_in_float_by_the_speed_of_int8(speed: float) -> None:
    costs = model(WORK, speed=speed)
    int8, floats = costs.price({}), costs.price({"conv2d": "float"})
    assert floats.cost / int8.cost == pytest.approx(speed)
    assert (int8.float_share, floats.float_share) == (0.0, 1.0)
    assert (int8.size, floats.size) == (100, 400)


def test_weights_take_their_bytes() -> None:
    costs = model(WEIGHTS)
    prices = [costs.price({"linear": mode}) for mode in ("static", "fp16", "float")]
    assert [each.cost / prices[0].cost for each in prices] == pytest.approx([1, 2, 4])
    assert [each.size for each in prices] == [100_000, 200_000, 400_000]
    assert costs.price({"linear": "dynamic"}).float_share == 0


def test_measured_times_are_taken_and_scale_the_rest() -> None:
    plain = model(WORK, WEIGHTS)
    slow = plain.site_cost(WORK, "static") * 10
    costs = model(*with_times((WORK, WEIGHTS), {"conv2d": Times(slow, 7.0)}))
    assert costs.site_cost(costs.sites[0], "static") == slow
    assert costs.site_cost(costs.sites[0], "float") == 7.0
    ratio = costs.site_cost(costs.sites[1], "static") / plain.site_cost(WEIGHTS, "static")
    assert ratio == pytest.approx(10)
    assert "1 of 2 sites" in costs.source
    assert "tuner" not in plain.source


def test_operators_that_are_float_anyway_count() -> None:
    costs = CostModel((WORK,), (1_000_000, 800), 2.0)
    assert costs.price({}).float_share == 0.5
    assert costs.price({}).size == 900
