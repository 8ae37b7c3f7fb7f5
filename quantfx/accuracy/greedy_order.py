"""In which order sites are best taken back from int8: most noise won for the least cost first."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from quantfx.passes.report.sensitivity.sensitivity import Sensitivity


def greedy_order(sensitivity: Sensitivity, extra: Sequence[float]) -> list[str]:
    """Return the names of all sites, the best first, each given those in front of it.

    With D the contributions and S the sites that are float already, site i wins
    ``2 s_i - mean(d_i^2) - 2 mean(d_i sum_S d)``: by so much ``Sensitivity.predict`` falls. ``s_i``
    is its share of the measured noise, or ``mean(d_i sum d)`` of the expected one. What it wins is
    divided by what it costs.

    Args:
        sensitivity: With every site rounded.
        extra: What each site costs more if it is not, in the order of its sites.
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
