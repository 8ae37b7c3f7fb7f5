"""Partial changes of a spec: a config's changes to the backend's own spec of a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import torch

from quantfx.passes.errors import ConfigError, SpecError
from quantfx.passes.quant.spec import INTEGER_RANGES, Concrete, ObserverName, QuantSpec
from quantfx.patterns.errors import unknown_name

Float = Literal["float"]
FLOAT: Float = "float"
_OBSERVERS: tuple[str, ...] = get_args(ObserverName)
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in INTEGER_RANGES}


class SpecOptions(TypedDict, total=False):
    """Keyword form of a `SpecChange`."""

    dtype: str | torch.dtype
    quant_min: int
    quant_max: int
    symmetric: bool
    observer: ObserverName
    eps: float
    group: int


@dataclass(frozen=True)
class SpecChange:
    """What to change in a spec; None keeps the backend's value.

    Attributes:
        dtype: Name of an integer dtype, e.g. ``int8``; also sets the range to its full range.
        quant_min: Smallest integer used.
        quant_max: Largest integer used.
        symmetric: Whether the zero point is fixed.
        observer: The observer that finds the range.
        eps: Lower bound of the scale.
        group: How many values of a row share a scale, for weights in groups.
    """

    dtype: str | None = None
    quant_min: int | None = None
    quant_max: int | None = None
    symmetric: bool | None = None
    observer: ObserverName | None = None
    eps: float | None = None
    group: int | None = None

    @staticmethod
    def of(options: Mapping[str, Any]) -> SpecChange:
        """Return the change that ``options`` describe.

        Raises:
            ConfigError: an option, its type or an observer is unknown; names the nearest.
        """
        for name, value in options.items():
            if name not in _TYPES:
                raise unknown_name(ConfigError, "option", name, _TYPES)
            _require_valid(name, value)
        given = dict(options)
        if not given:
            message = "the change names no option"
            raise ConfigError(message, rule="config-value", fix=f"give one of {', '.join(_TYPES)}")
        if "dtype" in given:
            given["dtype"] = _dtype_name(given["dtype"])
        return SpecChange(**given)

    def options(self) -> dict[str, Any]:
        """Return the changes by option name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if value is not None}

    def without_observing(self) -> SpecChange | None:
        """Return the changes that apply to a spec without observer; None if there are none."""
        left = replace(self, **dict.fromkeys(_OBSERVING))
        return left if left.options() else None

    def apply(self, spec: Concrete) -> Concrete:
        """Return ``spec`` with this change.

        Raises:
            SpecError: the result contradicts itself.
        """
        if not isinstance(spec, QuantSpec):
            message = f"'{spec}' has no integers, so nothing can change in it"
            raise SpecError(message, rule="no-integers", site=str(spec))
        options = self.options()
        vain = [name for name in _OBSERVING if name in options]
        if spec.dynamic and vain:
            message = f"'{spec}' observes nothing, its range is found in each call"
            fix = f"leave out {' and '.join(vain)}, or choose mode 'static'"
            raise SpecError(message, rule="no-observer", site=str(spec), fix=fix)
        if "dtype" in options:
            options["dtype"] = _DTYPES[options["dtype"]]
            low, high = INTEGER_RANGES[options["dtype"]]
            options = {"quant_min": low, "quant_max": high} | options
        return replace(spec, **options)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options().items())


Change: TypeAlias = SpecChange | Float

_OBSERVING = ("observer", "eps")
_TYPES: dict[str, tuple[type, ...]] = {
    "dtype": (str, torch.dtype),
    "quant_min": (int,),
    "quant_max": (int,),
    "symmetric": (bool,),
    "observer": (str,),
    "eps": (float, int),
    "group": (int,),
}


def over(earlier: Change | None, change: Change) -> Change:
    """Return both changes merged; where both set an option, ``change`` decides."""
    if isinstance(earlier, SpecChange) and isinstance(change, SpecChange):
        return replace(earlier, **change.options())
    return change


def change_of(value: object) -> Change:
    """Return the change that a caller or a file gives: None or ``"float"``, or options.

    Raises:
        ConfigError: it is neither.
    """
    if value is None or value == FLOAT:
        return FLOAT
    if isinstance(value, SpecChange):
        return SpecChange.of(value.options())
    if isinstance(value, Mapping):
        return SpecChange.of(value)
    message = f"{value!r} is neither options such as {{observer: 'min_max'}} nor 'float'"
    raise ConfigError(message, rule="config-value", site=repr(value))


def _require_valid(name: str, value: object) -> None:
    if name == "observer" and callable(value):
        message = "a config is text, so it names an observer of quantfx's own, and takes no class"
        fix = (
            "give the class to a spec: "
            "backend.with_specs(act=replace(backend.recipe.spec('act'), observer=...))"
        )
        raise ConfigError(message, rule="config-value", site=name, fix=fix)
    if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name != "symmetric"):
        wanted = " or ".join(each.__name__ for each in _TYPES[name])
        raise ConfigError(
            f"{name} = {value!r} is not of type {wanted}", rule="config-value", site=name
        )
    if name == "observer" and value not in _OBSERVERS:
        raise unknown_name(ConfigError, "observer", value, _OBSERVERS)
    if isinstance(value, float | int) and name == "eps" and not 0 < value < math.inf:
        raise ConfigError(
            f"{name} = {value!r} is not positive and finite", rule="config-value", site=name
        )


def _dtype_name(dtype: str | torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise unknown_name(ConfigError, "dtype", name, _DTYPES)
    return name
