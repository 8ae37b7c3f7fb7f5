"""What a backend binds for its passes: patterns, and a spec for each spec name they use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from quantfx.passes.errors import SpecError
from quantfx.passes.spec import QuantSpec
from quantfx.patterns.errors import did_you_mean
from quantfx.patterns.pattern_set import PatternSet


@dataclass(frozen=True)
class Recipe:
    """Patterns bound to specs.

    Attributes:
        name: What reports call it, e.g. ``x86``.
        patterns: What to look for, in order of priority.
        specs: ``(spec name, spec)`` for every name the patterns use.
    """

    name: str
    patterns: PatternSet
    specs: tuple[tuple[str, QuantSpec], ...]

    def __post_init__(self) -> None:
        for template in self.patterns.templates:
            for _, spec in template.quant:
                if not spec.startswith("same("):
                    self.spec(spec)

    @cached_property
    def _specs(self) -> Mapping[str, QuantSpec]:
        return dict(self.specs)

    def spec(self, name: str) -> QuantSpec:
        """Return the spec bound to ``name``.

        Raises:
            SpecError: none is; names the nearest one.
        """
        if name not in self._specs:
            nearest = did_you_mean(name, self._specs)
            raise SpecError(f"recipe '{self.name}' binds no spec '{name}'{nearest}")
        return self._specs[name]

    @cached_property
    def digest(self) -> str:
        """A hash of the patterns and the specs."""
        text = f"{self.name}\n{self.patterns.digest}\n{self.specs!r}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
