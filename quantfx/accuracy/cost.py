"""The cost of a recipe: the tuner's times where it ran, else a model of bytes and MACs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quantfx.accuracy.candidate import SiteMode

# Multiply-accumulates in the time of one in float32. For int8 at static sites VPDPBUSD does 64
# where VFMADD does 16, which is 4; without VNNI it takes three instructions for twice as many, and
# the README's networks ran 1.8 to 2.1 times as fast as in float, which is 2. Dynamic sites search
# the range of their input as well; the other modes round weights alone and compute in float.
_SPEED_OF_DYNAMIC = 0.8
_BYTES = {"static": 1.0, "dynamic": 1.0, "fp16": 2.0, "weight-only": 1.0, "weight-only-4bit": 0.5}
_FLOAT_BYTES = 4

# MACs in float32 that take as long as reading one byte of weights: two FMA units of eight lanes do
# 16 in a cycle, in which one core gets some 4 bytes from memory (12 GB/s at 3 GHz).
_MACS_A_BYTE = 4.0
_MACS_A_MICROSECOND = 48_000.0


class Times(NamedTuple):
    """Measured times of a site, in microseconds.

    Attributes:
        int8: With the faster int8 kernel.
        floats: With float operators.
    """

    int8: float
    floats: float


class Price(NamedTuple):
    """The price of a whole recipe.

    Attributes:
        cost: Microseconds. Modelled ones are only good for comparing recipes.
        size: Bytes of all weights.
        float_share: Share of all MACs that is not computed in int8.
    """

    cost: float
    size: int
    float_share: float


@dataclass(frozen=True)
class PricedSite:
    """A planned site with what its cost depends on.

    Attributes:
        name: Name of the site.
        op: Name of its operator.
        mode: Mode that the backend's config gives it.
        macs: Multiply-accumulates; 0 if unknown.
        weight_bytes: Bytes of its weights in float.
        times: Times that the tuner measured; None if it measured none.
    """

    name: str
    op: str
    mode: SiteMode
    macs: int
    weight_bytes: int
    times: Times | None = None


@dataclass(frozen=True)
class CostModel:
    """Prices recipes by the modes of their sites.

    A site costs the time of its MACs or of its weight bytes, as estimated above, whichever is
    longer. A site that the tuner measured costs its share, by MACs, of its region's time in int8 or
    in float. For modes and sites that the tuner did not measure, the model's time is scaled by the
    ratio found at measured sites. Activations, operators without weights and conversions between
    int8 and float are left out: they hardly differ between recipes.

    Attributes:
        sites: All planned sites.
        floats: ``(MACs, weight bytes)`` of each operator that is float in every recipe.
        speed: Number of int8 MACs in the time of one in float32: 4 with VNNI, 2 without.
    """

    sites: tuple[PricedSite, ...]
    floats: tuple[int, int]
    speed: float

    def price(self, modes: Mapping[str, SiteMode]) -> Price:
        """Return the price of a recipe.

        Args:
            modes: Modes of the sites that differ from the backend's config.
        """
        macs, size = self.floats
        cost = self._modelled(macs, size, "float") * self._scale
        floats = macs
        for site in self.sites:
            mode = modes.get(site.name, site.mode)
            cost += self.site_cost(site, mode)
            size += int(site.weight_bytes * _BYTES.get(mode, _FLOAT_BYTES) / _FLOAT_BYTES)
            macs += site.macs
            floats += site.macs * (mode not in ("static", "dynamic"))
        return Price(cost, size, floats / macs if macs else 0.0)

    def site_cost(self, site: PricedSite, mode: SiteMode) -> float:
        """Return the cost of one site in one mode, in microseconds."""
        if site.times is not None and mode in ("static", "float"):
            return site.times.int8 if mode == "static" else site.times.floats
        return self._modelled(site.macs, site.weight_bytes, mode) * self._scale

    @property
    def source(self) -> str:
        """The origin of the costs, in words."""
        measured = sum(site.times is not None for site in self.sites)
        model = f"a model of MACs and bytes (int8 {self.speed:g} times as fast)"
        if not measured:
            return model
        if measured == len(self.sites):
            return "the tuner's times"
        return f"the tuner's times for {measured} of {len(self.sites)} sites, and {model}"

    @property
    def _scale(self) -> float:
        """Return the ratio of measured to modelled time over the measured sites."""
        pairs = [(site, site.times) for site in self.sites if site.times is not None]
        modelled = sum(self._modelled(s.macs, s.weight_bytes, "static") for s, _ in pairs)
        return sum(times.int8 for _, times in pairs) / modelled if modelled else 1.0

    def _modelled(self, macs: int, weight_bytes: int, mode: SiteMode) -> float:
        speeds = {"static": self.speed, "dynamic": self.speed * _SPEED_OF_DYNAMIC}
        stored = weight_bytes * _BYTES.get(mode, _FLOAT_BYTES) / _FLOAT_BYTES
        return max(macs / speeds.get(mode, 1.0), stored * _MACS_A_BYTE) / _MACS_A_MICROSECOND


def with_times(sites: Sequence[PricedSite], times: Mapping[str, Times]) -> tuple[PricedSite, ...]:
    """Return the sites with the times that the tuner measured, by name."""
    return tuple(
        PricedSite(s.name, s.op, s.mode, s.macs, s.weight_bytes, times.get(s.name)) for s in sites
    )
