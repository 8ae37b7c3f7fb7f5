"""The order in which sites are taken back from int8: most noise removed per cost first."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from quantfx.passes.report.sensitivity.sensitivity import Sensitivity


def greedy_order(sensitivity: Sensitivity, extra: Sequence[float]) -> list[str]:
    """Return the names of all sites, the best first; each is chosen given those before it.

    With contributions d and S the sites that are already float, site i wins ``2 s_i - mean(d_i^2) -
    2 mean(d_i sum_S d)``: ``Sensitivity.predict`` falls by this much. ``s_i`` is the site's share
    of the measured noise, or ``mean(d_i sum d)`` of the expected noise. The gain is divided by the
    extra cost.

    Args:
        sensitivity: Sensitivity with every site rounded.
        extra: Extra cost of each site if it is not rounded, in the order of its sites.
    """
    found = sensitivity.contributions.double()
    rows = len(found)
    together = found.T @ found / rows  # mean(d_i d_j)
    whole = sensitivity.whole
    shares = together.sum(1) if whole is None else torch.tensor(whole.shares, dtype=torch.float64)
    prices = torch.tensor(extra, dtype=torch.float64)
    prices = prices.clamp(min=float(prices.sum()) * 1e-6 + 1e-12)
    gains = 2 * shares - together.diagonal()
    left = list(range(len(extra)))
    order: list[str] = []
    while left:
        best = max(left, key=lambda i: float(gains[i] / prices[i]))
        left.remove(best)
        gains = gains - 2 * together[best]
        order.append(str(sensitivity.sites[best].site))
    return order
