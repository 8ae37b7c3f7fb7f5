"""A recipe that may be tried, as a value with a text form."""

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
    """What a recipe changes in that of the backend.

    Attributes:
        options: Options of the backend, sorted by name.
        observer: Of all activations; None for the backend's.
        modes: Of single sites, sorted by name; all others are as the backend's config says.
    """

    options: tuple[tuple[str, float | bool], ...] = ()
    observer: ObserverName | None = None
    modes: tuple[tuple[str, SiteMode], ...] = ()

    @property
    def text(self) -> str:
        """All of it on one line, e.g. ``repair=True; float: conv2d, conv2d_3``."""
        by_mode = [f"{mode}: {', '.join(names)}" for mode, names in self._by_mode().items()]
        return "; ".join([self.whole, *by_mode])

    @property
    def short(self) -> str:
        """The same with sites counted, e.g. ``repair=True; 2 float``."""
        counts = Counter(mode for _, mode in self.modes)
        return "; ".join([self.whole, *(f"{count} {mode}" for mode, count in counts.items())])

    @property
    def whole(self) -> str:
        """What holds for the whole model."""
        words = [f"{name}={value}" for name, value in self.options]
        if self.observer is not None:
            words.append(f"observer={self.observer}")
        return " ".join(words) or "plain"

    def with_modes(self, modes: Mapping[str, SiteMode]) -> Candidate:
        """Return the candidate with these modes of sites in the place of its own."""
        return replace(self, modes=tuple(sorted(modes.items())))

    def config(self, base: Config) -> Config:
        """Return the config that makes it.

        Args:
            base: Of the backend.
        """
        config = base if self.observer is None else base.activations(observer=self.observer)
        for name, mode in self.modes:
            config = config.call(name, mode)
        return config

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
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
