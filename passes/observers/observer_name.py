"""How a report or a file names the observer of a spec."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import nn

from quantfx.passes.errors import SpecError
from quantfx.passes.observers.derived import DerivedFrom
from quantfx.passes.observers.fixed import FixedQParams
from quantfx.passes.quant.spec import QuantSpec


@dataclass(frozen=True)
class NamedObserver:
    """Stands in a loaded spec for somebody's own observer, of which a file holds the name alone.

    Attributes:
        name: As ``observer_name`` returned it.
    """

    name: str

    def __call__(self, spec: QuantSpec, label: str) -> nn.Module:
        """Refuse: its code is not in the file.

        Raises:
            SpecError: always.
        """
        message = f"{label}: a file holds the name of the observer '{self.name}', not its code"
        fix = "give the class itself: QuantSpec(..., observer=...)"
        raise SpecError(message, rule="spec-observer", site=label, fix=fix)


def observer_name(observer: object) -> str:
    """Return the words for the ``observer`` of a spec: a name, a class or what makes observers."""
    if isinstance(observer, str):
        return observer
    if isinstance(observer, NamedObserver):
        return observer.name
    if isinstance(observer, FixedQParams):
        return "fixed"
    if isinstance(observer, DerivedFrom):
        return f"derived from {', '.join(map(str, observer.sources))}"
    if isinstance(observer, partial):
        return observer_name(cast("partial[object]", observer).func)
    return str(getattr(observer, "__name__", type(observer).__name__))
