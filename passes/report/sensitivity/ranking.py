"""The cost and win of a site or module, as data."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """The values of a metric for one site.

    Attributes:
        alone: With the site rounded and all other sites float.
        without: With the site float and all other sites rounded.
    """

    alone: float
    without: float


@dataclass(frozen=True)
class Evaluation:
    """The values of a metric for the whole model.

    Attributes:
        metric: Name of the metric.
        exact: With all sites float.
        rounded: With all sites rounded.
    """

    metric: str
    exact: float
    rounded: float


@dataclass(frozen=True)
class Whole:
    """The noise of the q/dq graph, attributed to sites.

    Attributes:
        noise: Measured noise with all sites rounded.
        shares: Each site's share: the projection of its error on the total error. Shares add up to
            about ``noise``; errors that cancel other errors have negative shares.
    """

    noise: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Ranked:
    """A site, or all sites of a module together.

    Attributes:
        name: Name of the site or module.
        op: Its operator, or the module's operators.
        module: Path of the user's module.
        sites: The names of the sites.
        cost: Noise of the outputs if only it is rounded.
        win: By how much the noise falls if only it stays float; negative where its errors cancel
            errors of other sites.
        uncertainty: Standard error of ``cost`` over the rows, relative to ``cost``.
        macs: Multiply-accumulates; None if unknown.
        weight_bytes: Bytes of its weights, in float.
        measured: Values of the metric for it; None if it was not evaluated.
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
        """Signal to noise of the outputs in dB if only it is rounded."""
        return noise_decibels(self.cost)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {**asdict(self), "sqnr": self.sqnr}


def noise_decibels(noise: float) -> float:
    """Return the signal to noise ratio in dB of relative noise."""
    if noise <= 0:
        return math.inf
    return -10 * math.log10(noise) if math.isfinite(noise) else -math.inf
