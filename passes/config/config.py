"""What is quantized and how, as a value: a default mode and rules for parts of the model."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias, Unpack

from torch import nn
from torch._ops import OpOverload
from torch.fx import Node

from quantfx.passes.config import text as config_text
from quantfx.passes.config.rule import (
    ACTIVATIONS,
    WEIGHTS,
    CallRule,
    Rule,
    TensorRule,
    mode_of,
    specs_of,
)
from quantfx.passes.config.selectors import (
    CallSelector,
    Everything,
    ModuleSelector,
    OpSelector,
    Selector,
    TensorSelector,
    TypeSelector,
    Where,
)
from quantfx.passes.config.spec_change import FLOAT, Float, SpecChange, SpecOptions
from quantfx.passes.errors import ConfigError
from quantfx.patterns.errors import did_you_mean
from quantfx.patterns.template import MODES, Mode

# A function's identity is valid in this process only, and so is the digest of a config with one.
_PROCESS = uuid.uuid4().hex


class Inherit(Enum):
    """Leaves a decision to other rules."""

    INHERIT = "inherit"


INHERIT = Inherit.INHERIT
Choice: TypeAlias = Mode | Float | Inherit | None
Specs: TypeAlias = Mapping[str, Any] | SpecChange | Float | None
ModuleClass: TypeAlias = type[nn.Module]
ConfigLike: TypeAlias = "Config | str | Path | Mapping[str, Any]"


@dataclass(frozen=True, init=False)
class Config:
    """A default mode and rules; every method returns another config with one more rule.

    Modes are ``"static"``, ``"dynamic"``, ``"fp16"`` and ``"weight-only"``; None (or ``"float"``)
    keeps float. For each call the most specific rule decides:

    1. one tensor, ``tensor("conv2d_3.input", ...)``
    2. one call, ``call("conv2d_3", ...)``, or a function of the node, ``where(function, ...)``
    3. a pattern of tensors, ``tensor("linear*.weight", ...)``
    4. one module and all inside it, ``module("encoder.layer.0", ...)``
    5. a pattern of modules, ``module("encoder.*", ...)``
    6. an operator or a class of modules, ``op("conv2d", ...)``, ``type(nn.Linear, ...)``
    7. ``activations(...)``, ``weights(...)`` of the whole model, and ``default``

    Of two rules of equal rank the later one decides. Changes of specs accumulate in that order.

    Attributes:
        default: Mode of calls that no rule selects; ``"float"`` keeps them float.
        rules: The rules in the order given.
    """

    default: Mode | Float
    rules: tuple[Rule, ...]

    def __init__(
        self, default: Mode | Float | None = "static", rules: tuple[Rule, ...] = ()
    ) -> None:
        object.__setattr__(self, "default", mode_of(default))
        object.__setattr__(self, "rules", rules)

    def module(self, path: str, mode: Choice = INHERIT, **specs: Specs) -> Config:
        """Decide for every call inside modules.

        Args:
            path: Dotted path of one module, or a pattern with ``*``, ``?`` or ``[...]`` for paths.
            mode: How to quantize; None keeps float.
            specs: Changes by spec name, or for ``activations`` or ``weights``.
        """
        return self._with(ModuleSelector(path), mode, specs)

    def type(self, kind: str | ModuleClass, mode: Choice = INHERIT, **specs: Specs) -> Config:
        """Decide for every call inside modules of one class (not of its subclasses).

        Args:
            kind: The class, or its qualified or short name.
            mode: How to quantize; None keeps float.
            specs: As for `module`.
        """
        return self._with(TypeSelector(_class_name(kind)), mode, specs)

    def op(
        self, name: str | OpOverload[..., Any], mode: Choice = INHERIT, **specs: Specs
    ) -> Config:
        """Decide for every call of an operator.

        Args:
            name: A word such as ``conv2d``, or an overload such as ``aten.conv2d.default``.
            mode: How to quantize; None keeps float.
            specs: As for `module`.
        """
        return self._with(OpSelector(str(name)), mode, specs)

    def call(self, name: str, mode: Choice = INHERIT, **specs: Specs) -> Config:
        """Decide for one call.

        Args:
            name: The node's name in the captured graph, after the path of a nested graph.
            mode: How to quantize; None keeps float.
            specs: As for `module`.
        """
        return self._with(CallSelector(name), mode, specs)

    def where(
        self, function: Callable[[Node], bool], mode: Choice = INHERIT, **specs: Specs
    ) -> Config:
        """Decide for every call where ``function`` is true; such a config has no text form.

        Args:
            function: Takes the node and returns a bool.
            mode: How to quantize; None keeps float.
            specs: As for `module`.
        """
        if not callable(function):
            message = f"where={function!r} is not a function"
            fix = "give a function of the node that returns a bool"
            raise ConfigError(message, rule="config-value", site="where", fix=fix)
        return self._with(Where(function), mode, specs)

    def tensor(
        self, site: str, mode: Float | Inherit | None = INHERIT, **options: Unpack[SpecOptions]
    ) -> Config:
        """Decide for tensors that calls read.

        Args:
            site: ``node.argument``, e.g. ``conv2d_3.input``; or a pattern.
            mode: None keeps the tensor float, and so every match that needs it quantized.
            options: Changes of its spec.
        """
        if mode is not INHERIT:
            if options or mode not in (None, FLOAT):
                message = f"tensor={site!r} takes no mode but None"
                fix = "give either None for float, or options"
                raise ConfigError(message, rule="config-value", site=site, fix=fix)
            return self._and(TensorRule(TensorSelector(site), FLOAT))
        return self._and(TensorRule(TensorSelector(site), _change(f"tensor={site!r}", options)))

    def activations(self, **options: Unpack[SpecOptions]) -> Config:
        """Change the spec of every activation of the model."""
        return self._everywhere(ACTIVATIONS, options)

    def weights(self, **options: Unpack[SpecOptions]) -> Config:
        """Change the spec of every weight of the model."""
        return self._everywhere(WEIGHTS, options)

    @staticmethod
    def of(given: ConfigLike) -> Config:
        """Return the config that ``given`` means.

        Args:
            given: A config, the name of a default mode, the path of a ``.toml`` or ``.json`` file,
                or the content of such a file as a mapping.

        Raises:
            ConfigError: it is no valid config; names the place and the nearest valid name.
        """
        if isinstance(given, Config):
            return given
        if isinstance(given, Mapping):
            return Config(*config_text.from_table(given, "config"))
        if isinstance(given, Path) or str(given).lower().endswith((".toml", ".json")):
            return Config(*config_text.read(Path(given)))
        if given in (*MODES, FLOAT):
            return Config(mode_of(given))
        nearest = did_you_mean(str(given), (*MODES, FLOAT))
        raise ConfigError(
            f"config '{given}' is neither a mode{nearest} nor the path of a .toml or .json file",
            rule="unknown-name",
            site=str(given),
        )

    def to_toml(self) -> str:
        """Return the config as TOML.

        Raises:
            ConfigError: a rule selects by a function.
        """
        return config_text.to_toml(self.default, self.rules)

    def to_json(self) -> str:
        """Return the config as JSON.

        Raises:
            ConfigError: a rule selects by a function.
        """
        return config_text.to_json(self.default, self.rules)

    @staticmethod
    def from_toml(text: str) -> Config:
        """Return the config that ``text`` describes.

        Raises:
            ConfigError: names the line or rule and the nearest valid name.
        """
        return Config(*config_text.from_toml(text, "config"))

    @staticmethod
    def from_json(text: str) -> Config:
        """Return the config that ``text`` describes.

        Raises:
            ConfigError: names the line or rule and the nearest valid name.
        """
        return Config(*config_text.from_json(text, "config"))

    @property
    def identity(self) -> str:
        """Text that differs between configs that decide differently; for digests."""
        functions = [r.selector.function for r in self.rules if isinstance(r.selector, Where)]
        token = [_PROCESS, *(str(id(function)) for function in functions)] if functions else []
        return "\n".join([repr(self.default), *map(repr, self.rules), *token])

    @property
    def call_rules(self) -> tuple[CallRule, ...]:
        """The rules about calls."""
        return tuple(rule for rule in self.rules if isinstance(rule, CallRule))

    def _with(self, selector: Selector, mode: Choice, specs: Mapping[str, Specs]) -> Config:
        try:
            chosen = None if isinstance(mode, Inherit) else mode_of(mode)
            return self._and(CallRule(selector, chosen, specs_of(specs)))
        except ConfigError as error:
            raise _locate(error, str(selector)) from None

    def _everywhere(self, name: str, options: Mapping[str, Any]) -> Config:
        return self._and(CallRule(Everything(), specs=((name, _change(name, options)),)))

    def _and(self, rule: Rule) -> Config:
        return replace(self, rules=(*self.rules, rule))


def _class_name(kind: object) -> str:
    if isinstance(kind, str):
        return kind
    if isinstance(kind, type):
        return f"{kind.__module__}.{kind.__qualname__}"
    given = type(kind).__name__
    message = f"type: a {given} is neither a class of modules nor the name of a class"
    fix = f"give its class, {given}" if isinstance(kind, nn.Module) else ""
    raise ConfigError(message, rule="config-value", site="type", fix=fix)


def _change(where: str, options: Mapping[str, Any]) -> SpecChange:
    try:
        return SpecChange.of(options)
    except ConfigError as error:
        raise _locate(error, where) from None


def _locate(error: ConfigError, where: str) -> ConfigError:
    message = str(error)
    return error if message.startswith(where) else error.within(where, ConfigError)
