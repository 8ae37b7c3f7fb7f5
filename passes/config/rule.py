"""One rule of a config: what it selects, and what it decides there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from quantfx.passes.config.selectors import NAMED, Everything, Named, Selector, TensorSelector
from quantfx.passes.config.spec_change import FLOAT, Change, Float, change_of
from quantfx.passes.errors import ConfigError
from quantfx.passes.quant.spec import Concrete, QuantSpec
from quantfx.patterns.errors import unknown_name
from quantfx.patterns.template import MODES, Mode

ACTIVATIONS = "activations"
WEIGHTS = "weights"
SELECTORS = (*NAMED, Everything.kind)  # the keys of selectors in files


class SpecUse(NamedTuple):
    """A spec by name, and whether it is used for ``activations`` or ``weights``."""

    name: str
    kind: str


@dataclass(frozen=True)
class TensorRead:
    """A quantized tensor that a call reads, as rules see it.

    Attributes:
        site: The site, e.g. ``conv2d_3.input``.
        use: The spec that it is quantized with, and its use.
    """

    site: str
    use: SpecUse


@dataclass(frozen=True)
class CallRule:
    """A decision for the calls that a selector selects, and for the tensors that they read.

    Attributes:
        selector: Any selector except a ``TensorSelector``. For the whole model only ``specs`` are
            decided: its mode is the config's default.
        mode: How the calls are quantized, ``"float"`` for not at all; None leaves that to other
            rules.
        specs: ``(spec name or "activations" or "weights", change)``; a change to ``"float"`` keeps
            the tensor, and so every match that needs it, float.
    """

    selector: Selector
    mode: Mode | Float | None = None
    specs: tuple[tuple[str, Change], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.selector, Named):
            _require_name(self.selector)
        for name, _ in self.specs:
            if name in (*SELECTORS, "mode"):
                raise ConfigError(
                    f"{self}: '{name}' cannot name a spec: the word has its own meaning in files",
                    rule="taken-name",
                    site=name,
                    fix="give each selector a rule, and each change the name of a spec",
                )
        if self.mode is None and not self.specs:
            message = f"{self} decides nothing"
            fix = "give a mode, None for float, or specs"
            raise ConfigError(message, rule="config-value", site=str(self), fix=fix)
        if self.mode is not None and isinstance(self.selector, Everything):
            message = "a rule cannot set the mode of the whole model"
            fix = "set the default of the config"
            raise ConfigError(message, rule="config-value", site=str(self), fix=fix)

    def meanings(self, specs: Mapping[str, Concrete]) -> list[Mapping[SpecUse, Change]]:
        """Return the meaning of each change of the rule for the uses of specs.

        Args:
            specs: The specs that a backend binds to the names.
        """
        uses = [SpecUse(name, kind) for name in specs for kind in (ACTIVATIONS, WEIGHTS)]
        return [
            {
                use: meant
                for use in uses
                if (meant := self._meaning_of(name, change, use, specs[use.name])) is not None
            }
            for name, change in self.specs
        ]

    def _meaning_of(self, name: str, change: Change, use: SpecUse, spec: Concrete) -> Change | None:
        """Return the meaning of a change of ``name`` for a use of a spec; None if there is none.

        A change of all activations or all weights does not apply to two kinds of specs: a cast,
        which has no range; and a spec that makes its own observer, which fixes or constrains its
        qparams. A change of the whole model leaves a dynamic spec without an observer.
        """
        if name == use.name or (name == use.kind and isinstance(change, str)):
            return change
        if name != use.kind or isinstance(change, str):
            return None
        if not isinstance(spec, QuantSpec) or not isinstance(spec.observer, str):
            return None
        is_passed = spec.dynamic and isinstance(self.selector, Everything)
        return change.without_observing() if is_passed else change

    def __str__(self) -> str:
        return str(self.selector)


@dataclass(frozen=True)
class TensorRule:
    """A decision for the tensors that a selector names.

    Attributes:
        selector: Selects tensors that calls read.
        change: Changes of their spec; ``"float"`` keeps them, and so every match that needs
            them, float.
    """

    selector: TensorSelector
    change: Change

    def __post_init__(self) -> None:
        _require_name(self.selector)

    def __str__(self) -> str:
        return str(self.selector)


Rule: TypeAlias = CallRule | TensorRule


def _require_name(selector: Named) -> None:
    name: object = selector.name
    if not isinstance(name, str):
        message = f"{selector.kind}={name!r}"
        fix = "give a name as text"
        raise ConfigError(message, rule="config-value", site=selector.kind, fix=fix)
    if not name:
        message = f"{selector.kind}='' selects nothing"
        raise ConfigError(message, rule="config-value", site=selector.kind, fix="name something")


def mode_of(value: object) -> Mode | Float:
    """Return the mode that a caller or a file gives; None means ``"float"``.

    Raises:
        ConfigError: there is no such mode; names the nearest.
    """
    if value is None or value == FLOAT:
        return FLOAT
    for mode in MODES:
        if value == mode:
            return mode
    known = (*MODES, FLOAT)
    raise unknown_name(ConfigError, "mode", value, known)


def specs_of(table: Mapping[str, Any]) -> tuple[tuple[str, Change], ...]:
    """Return the changes that a caller or a file gives, by spec name.

    Raises:
        ConfigError: a change is ill-formed; names the spec.
    """
    found: list[tuple[str, Change]] = []
    for name, value in table.items():
        given: object = name
        if not isinstance(given, str):
            message = f"{given!r} is not the name of a spec"
            raise ConfigError(message, rule="config-value", site=repr(given), fix="give text")
        try:
            found.append((name, change_of(value)))
        except ConfigError as error:
            raise error.within(name, ConfigError) from None
    return tuple(found)
