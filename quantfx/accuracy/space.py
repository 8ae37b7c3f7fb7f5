"""The recipes that a search may try: whole recipes, and modes of single sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from quantfx.accuracy.candidate import Candidate, SiteMode
from quantfx.accuracy.cost import CostModel, PricedSite
from quantfx.passes.quant.spec import ObserverName
from quantfx.patterns.template import Mode

# Modes in which a site keeps some rounding; float is always offered.
_OF_LINEARS: tuple[Mode, ...] = ("dynamic", "weight-only", "fp16")
LINEAR = "linear"

Options = tuple[tuple[str, float | bool], ...]


@dataclass(frozen=True)
class Space:
    """The recipes that a search may try.

    Attributes:
        costs: Prices the sites.
        modes: Modes that the backend has templates for.
        options: Sets of backend options; each is a recipe.
        observers: Other observers, each tried with the best options.
        order: Returns the names of sites, in the order in which to take them back from int8.
    """

    costs: CostModel
    modes: frozenset[Mode]
    options: Sequence[Options]
    observers: Sequence[ObserverName]
    order: Callable[[Candidate], Sequence[str]]

    def with_options(self) -> list[Candidate]:
        """Return the whole recipe of every set of options."""
        return [Candidate(each) for each in self.options]

    def variants(self, best: Candidate) -> list[Candidate]:
        """Return variants of the best whole recipe: other observers, dynamic linears."""
        found = [Candidate(best.options, observer) for observer in self.observers]
        linears: dict[str, SiteMode] = {
            site.name: "dynamic"
            for site in self.costs.sites
            if site.mode == "static" and "dynamic" in self.alternatives(site)
        }
        return [*found, best.with_modes(linears)] if linears else found

    def alternatives(self, site: PricedSite) -> tuple[SiteMode, ...]:
        """Return the other modes that a site may have, the cheapest first."""
        if site.mode == "float":
            return ()
        rounded = _OF_LINEARS if site.op == LINEAR else ()
        modes: list[SiteMode] = [
            each for each in rounded if each in self.modes and each != site.mode
        ]
        return tuple(sorted([*modes, "float"], key=lambda mode: self.costs.site_cost(site, mode)))

    def freed_mode(self, site: PricedSite) -> SiteMode:
        """Return the cheapest mode that computes in float and rounds nothing to 8 bits."""
        exact: tuple[SiteMode, ...] = ("fp16", "float")
        return next(each for each in self.alternatives(site) if each in exact)  # cheapest first

    def extra(self, site: PricedSite) -> float:
        """Return the extra cost of a site that is not int8."""
        costs = self.costs
        return costs.site_cost(site, self.freed_mode(site)) - costs.site_cost(site, site.mode)

    def cheaper(self, modes: Mapping[str, SiteMode]) -> Iterator[tuple[str, SiteMode | None]]:
        """Yield steps back: a site and a cheaper mode (None: its own), the largest saving first."""
        sites = [site for site in self.costs.sites if site.name in modes]
        for site in sorted(sites, key=self.extra, reverse=True):
            now = self.costs.site_cost(site, modes[site.name])
            yield site.name, None
            for mode in self.alternatives(site):
                if self.costs.site_cost(site, mode) < now:
                    yield site.name, mode
