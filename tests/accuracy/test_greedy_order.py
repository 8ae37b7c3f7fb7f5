"""The order of sites is that in which ``Sensitivity.predict`` falls most for the cost."""

from __future__ import annotations

import pytest
import torch

from quantfx.accuracy.greedy_order import greedy_order
from quantfx.passes.graph.graphs import Site
from quantfx.passes.report.sensitivity.ranking import Whole
from quantfx.passes.report.sensitivity.sensitivity import SensitiveSite, Sensitivity

SITES = 7


def sensitivity(*, whole: bool) -> Sensitivity:
    draws = torch.randn(50, SITES, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    contributions = draws * torch.linspace(0.5, 2, SITES).double()
    sites = tuple(
        SensitiveSite(Site("", f"conv2d_{i}"), "conv2d", "m", "static", macs=1, weight_bytes=4)
        for i in range(SITES)
    )
    total = contributions.sum(1)
    shares = tuple(float((contributions[:, i] * total).mean()) for i in range(SITES))
    found = Whole(float(total.square().mean()), shares) if whole else None
    return Sensitivity(sites, contributions, calls=1, draws=1, unit="row", whole=found)


@pytest.mark.parametrize("whole", [False, True])
def test_each_site_is_the_best_given_those_before(whole: bool) -> None:
    found = sensitivity(whole=whole)
    extra = [1.0, 2.0, 1.0, 3.0, 1.0, 4.0, 5.0]
    order = greedy_order(found, extra)
    names = [str(each.site) for each in found.sites]
    assert sorted(order) == sorted(names)
    for count in range(SITES - 1):
        taken = order[:count]
        gains = {
            name: (found.predict(taken) - found.predict([*taken, name])) / cost
            for name, cost in zip(names, extra, strict=True)
            if name not in taken
        }
        assert gains[order[count]] == pytest.approx(max(gains.values()), abs=1e-9)


def test_a_cheap_site_comes_before_one_that_wins_as_much() -> None:
    found = sensitivity(whole=False)
    worst = greedy_order(found, [1.0] * SITES)[0]
    index = [str(each.site) for each in found.sites].index(worst)
    extra = [1.0] * SITES
    extra[index] = 1e6
    assert greedy_order(found, extra)[0] != worst
