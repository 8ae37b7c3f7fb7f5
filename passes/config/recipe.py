"""What a backend binds for its passes: patterns, a spec for each spec name, and a config."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from quantfx.passes.config.config import Config
from quantfx.passes.config.rule import CallRule, SpecUse
from quantfx.passes.config.spec_change import Change, over
from quantfx.passes.errors import SpecError
from quantfx.passes.quant.spec import Concrete
from quantfx.patterns.errors import unknown_name
from quantfx.patterns.pattern_set import PatternSet


@dataclass(frozen=True)
class Recipe:
    """Patterns bound to specs.

    Attributes:
        name: What reports call it, e.g. ``x86``.
        patterns: Templates in order of priority.
        specs: ``(spec name, spec)`` for every name the patterns use.
        config: Which parts of a model are quantized, and how.
    """

    name: str
    patterns: PatternSet
    specs: tuple[tuple[str, Concrete], ...]
    config: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        for name in self.patterns.spec_names:
            self.spec(name)

    @staticmethod
    def of(name: str, patterns: PatternSet, specs: Iterable[tuple[str, Concrete]]) -> Recipe:
        """Return a recipe with only the ``specs`` that the patterns use."""
        used = patterns.spec_names
        return Recipe(name, patterns, tuple((each, spec) for each, spec in specs if each in used))

    @cached_property
    def _specs(self) -> Mapping[str, Concrete]:
        return dict(self.specs)

    def spec(self, name: str) -> Concrete:
        """Return the spec bound to ``name``.

        Raises:
            SpecError: none is; names the nearest one.
        """
        if name not in self._specs:
            raise unknown_name(SpecError, "spec", name, self._specs, of=f"recipe '{self.name}'")
        return self._specs[name]

    @cached_property
    def changes(self) -> Mapping[CallRule, Mapping[SpecUse, Change]]:
        """The changes that each rule about calls makes to specs, by use of the spec."""
        found: dict[CallRule, Mapping[SpecUse, Change]] = {}
        for rule in self.config.call_rules:
            merged: dict[SpecUse, Change] = {}
            for meaning in rule.meanings(self._specs):
                merged |= {use: over(merged.get(use), change) for use, change in meaning.items()}
            found[rule] = merged
        return found

    @cached_property
    def digest(self) -> str:
        """A hash of the patterns, the specs and the config."""
        text = f"{self.name}\n{self.patterns.digest}\n{self.specs!r}\n{self.config.identity}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
