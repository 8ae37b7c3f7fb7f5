"""One rule of a config: what it selects, and what it decides there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantfx.passes.config.selectors import NAMED, Everything, Named, Selector, TensorSelector
from quantfx.passes.config.spec_change import FLOAT, Change, Float, SpecChange, change_of
from quantfx.passes.errors import ConfigError
from quantfx.passes.quant.spec import Concrete, QuantSpec
from quantfx.patterns.errors import unknown_name
from quantfx.patterns.template import MODES, Mode

ACTIVATIONS = "activations"
WEIGHTS = "weights"
SELECTORS = (*NAMED, Everything.kind)  # the keys of a rule's selector in files


@dataclass(frozen=True)
class TensorRead:
    """A quantized tensor that a call reads, as rules see it.

    Attributes:
        site: ``conv2d_3.input``.
        name: Name of its spec.
        kind: ``activations`` or ``weights``.
        spec: What the backend binds to that name.
    """

    site: str
    name: str
    kind: str
    spec: Concrete


@dataclass(frozen=True)
class Rule:
    """One selector and its decision.

    Attributes:
        selector: What the rule speaks of.
        mode: How the selected calls are quantized, ``"float"`` for not at all; None leaves that to
            other rules.
        specs: ``(spec name or "activations" or "weights", change)`` for tensors that the selected
            calls read; ``"float"`` keeps the tensor, and so every match that needs it, float.
        tensor: The change of the one tensor that a tensor selector selects.
    """

    selector: Selector
    mode: Mode | Float | None = None
    specs: tuple[tuple[str, Change], ...] = ()
    tensor: Change | None = None

    def __post_init__(self) -> None:
        if isinstance(self.selector, Named):
            _require_name(self.selector)
        for name, _ in self.specs:
            if name in (*SELECTORS, "mode"):
                raise ConfigError(
                    f"{self}: '{name}' cannot name a spec, in files it has a meaning of its own",
                    rule="taken-name",
                    site=name,
                    fix="give each selector a rule, and each change the name of a spec",
                )
        if isinstance(self.selector, TensorSelector):
            if self.tensor is None or self.mode is not None or self.specs:
                message = f"{self} gives a tensor no options of its own"
                fix = "give options such as observer=..., or None for float"
                raise ConfigError(message, rule="config-value", site=str(self), fix=fix)
        elif self.tensor is not None:
            message = f"{self}: only a tensor selector has options of its own"
            raise ConfigError(message, rule="config-value", site=str(self))
        elif self.mode is None and not self.specs:
            message = f"{self} decides nothing"
            fix = "give a mode, None for float, or specs"
            raise ConfigError(message, rule="config-value", site=str(self), fix=fix)
        elif self.mode is not None and isinstance(self.selector, Everything):
            message = "a rule cannot set the mode of the whole model"
            fix = "set the default of the config"
            raise ConfigError(message, rule="config-value", site=str(self), fix=fix)

    def change(self, read: TensorRead) -> Change | None:
        """Return what this rule, which selects the call, changes in a tensor that the call reads.

        What is said of all activations or weights passes by specs that are no integers: a cast
        has no range and no observer; and by those with an observer of their own, which know their
        qparams beforehand or demand something of them. In the same way what is said of the whole
        model leaves the observers of dynamic specs alone, which have none.
        """
        if isinstance(self.selector, TensorSelector):
            return self.tensor if self.selector.selects_tensor(read.site) else None
        return merge(
            [
                said
                for name, change in self.specs
                if (said := self._change_for(name, change, read)) is not None
            ]
        )

    def _change_for(self, name: str, change: Change, read: TensorRead) -> Change | None:
        if name == read.name:
            return change
        if name != read.kind:
            return None
        if isinstance(change, str):
            return change
        if not isinstance(read.spec, QuantSpec) or not isinstance(read.spec.observer, str):
            return None
        is_passed = read.spec.dynamic and isinstance(self.selector, Everything)
        return change.without_observing() if is_passed else change

    def __str__(self) -> str:
        return str(self.selector)


def _require_name(selector: Named) -> None:
    name: object = selector.name
    if not isinstance(name, str):
        message = f"{selector.kind}={name!r}"
        fix = "give a name as text"
        raise ConfigError(message, rule="config-value", site=selector.kind, fix=fix)
    if not name:
        message = f"{selector.kind}='' selects nothing"
        raise ConfigError(message, rule="config-value", site=selector.kind, fix="name something")


def merge(changes: list[Change]) -> Change | None:
    """Return all changes in one; where several speak, the last one decides."""
    merged: Change | None = None
    for change in changes:
        if isinstance(merged, SpecChange) and isinstance(change, SpecChange):
            merged = change.over(merged)
        else:
            merged = change
    return merged


def mode_of(value: object) -> Mode | Float:
    """Return the mode that a caller or a file gives; None is ``"float"``.

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
