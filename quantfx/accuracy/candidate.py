"""A recipe that a search may try, as a value with a text form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from quantfx.passes.config.config import Config
from quantfx.passes.config.spec_change import Float
from quantfx.passes.quant.spec import ObserverName
from quantfx.patterns.template import Mode

SiteMode = Mode | Float


@dataclass(frozen=True)
class Candidate:
    """The changes that a recipe makes to the backend's own recipe.

    Attributes:
        options: Options of the backend, sorted by name.
        observer: Observer of all activations; None for the backend's.
        modes: Modes of single sites, sorted by name; the backend's config decides all others.
    """

    options: tuple[tuple[str, float | bool], ...] = ()
    observer: ObserverName | None = None
    modes: tuple[tuple[str, SiteMode], ...] = ()

    @property
    def text(self) -> str:
        """The whole candidate on one line, e.g. ``repair=True; float: conv2d, conv2d_3``."""
        by_mode = [f"{mode}: {', '.join(names)}" for mode, names in self._by_mode().items()]
        return "; ".join([self.whole, *by_mode])

    @property
    def short(self) -> str:
        """Like ``text``, but with sites counted, e.g. ``repair=True; 2 float``."""
        counts = Counter(mode for _, mode in self.modes)
        return "; ".join([self.whole, *(f"{count} {mode}" for mode, count in counts.items())])

    @property
    def whole(self) -> str:
        """The changes that apply to the whole model."""
        words = [f"{name}={value}" for name, value in self.options]
        if self.observer is not None:
            words.append(f"observer={self.observer}")
        return " ".join(words) or "plain"

    def with_modes(self, modes: Mapping[str, SiteMode]) -> Candidate:
        """Return a copy of the candidate with these modes of sites."""
        return replace(self, modes=tuple(sorted(modes.items())))

    def config(self, base: Config) -> Config:
        """Return the config that sets these modes.

        Args:
            base: The backend's config.
        """
        config = base if self.observer is None else base.activations(observer=self.observer)
        for name, mode in self.modes:
            config = config.call(name, mode)
        return config

    def as_dict(self) -> dict[str, Any]:
        """Return the candidate as plain data."""
        return {
            "backend": dict(self.options),
            "observer": self.observer,
            "modes": dict(self.modes),
        }

    def _by_mode(self) -> dict[SiteMode, list[str]]:
        found: dict[SiteMode, list[str]] = {}
        for name, mode in self.modes:
            found.setdefault(mode, []).append(name)
        return dict(sorted(found.items()))
