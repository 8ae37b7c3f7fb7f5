"""What a site or a module costs and wins, as data."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What a metric says of one site.

    Attributes:
        alone: With all other sites float.
        without: With all other sites rounded.
    """

    alone: float
    without: float


@dataclass(frozen=True)
class Evaluation:
    """What a metric says of the whole.

    Attributes:
        metric: What is measured.
        exact: With all sites float.
        rounded: With all sites rounded.
    """

    metric: str
    exact: float
    rounded: float


@dataclass(frozen=True)
class Whole:
    """The noise of the q/dq graph, shared out.

    Attributes:
        noise: With all sites rounded, measured.
        shares: What of it is due to each site: how far its error points where that of all points.
            They add up to about ``noise``; errors that cancel others have negative ones.
    """

    noise: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Ranked:
    """A site, or all sites of a module together.

    Attributes:
        name: Of the site, or the module.
        op: Its operator, or those of the module.
        module: Path of the user's module.
        sites: The names of the sites.
        cost: Noise of the outputs if it alone is rounded.
        win: By how much the noise falls if it alone stays float; negative where its errors cancel
            those of other sites.
        uncertainty: Standard error of ``cost`` over the rows, as a share of it.
        macs: Multiply-accumulates; None if they are not known.
        weight_bytes: Of its weights, in float.
        measured: What the metric says of it; None where it was not evaluated.
    """

    name: str
    _: KW_ONLY
    op: str
    module: str
    sites: tuple[str, ...]
    cost: float
    win: float
    uncertainty: float
    macs: int | None
    weight_bytes: int
    measured: Measured | None = None

    @property
    def sqnr(self) -> float:
        """Signal to noise of the outputs in dB if it alone is rounded."""
        return noise_decibels(self.cost)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {**asdict(self), "sqnr": self.sqnr}


def noise_decibels(noise: float) -> float:
    """Return the signal to noise ratio in dB of relative noise."""
    if noise <= 0:
        return math.inf
    return -10 * math.log10(noise) if math.isfinite(noise) else -math.inf
