"""Positional and keyword arguments of a model from a batch or an example."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs.leaves import Inputs

Examples = Tensor | Sequence[Any] | Mapping[str, Any]
"""One tensor, positional arguments, or keyword arguments."""

FORMS = (
    "a tensor, a tuple or list of positional arguments, or keyword arguments as a dict (any "
    "Mapping, a dataclass, a named tuple)"
)


def arguments_of(given: Any, names: Collection[str]) -> Inputs | None:
    """Return the arguments that ``given`` stands for; None if ``given`` has none of the forms.

    Args:
        given: What a loader yields or a user writes.
        names: Names of the model's arguments. A named tuple means keyword arguments if a field has
            one of these names, else positional arguments.
    """
    if isinstance(given, Tensor):
        return (given,), {}
    if isinstance(given, Mapping):
        return (), {str(key): value for key, value in given.items()}
    if isinstance(given, (tuple, list)):
        own = getattr(given, "_fields", ())
        if not set(own).isdisjoint(names):
            return (), dict(zip(own, given, strict=True))
        return tuple(given), {}
    if is_dataclass(given) and not isinstance(given, type):
        return (), {each.name: getattr(given, each.name) for each in fields(given)}
    return None


def example_arguments(
    model: nn.Module, given: Examples, kwargs: Mapping[str, Any] | None
) -> Inputs:
    """Return the arguments that example inputs stand for, together with ``example_kwargs``.

    Raises:
        CaptureError: they have none of the forms, or do not fit the model's ``forward``; names the
            argument.
    """
    forward = getattr(model, "forward", None)
    signature = inspect.signature(forward) if callable(forward) else None
    found = arguments_of(given, () if signature is None else signature.parameters)
    if found is None:
        message = f"example_inputs is a {type(given).__name__}"
        raise CaptureError(message, rule="batch-form", site="example_inputs", fix=f"give {FORMS}")
    args, named = found
    if twice := sorted(named.keys() & (kwargs or {}).keys()):
        message = f"example_inputs and example_kwargs both hold '{twice[0]}'"
        raise CaptureError(message, rule="taken-name", site=twice[0], fix="give it once")
    named = {**named, **(kwargs or {})}
    told = "" if signature is None else misfit(signature, args, named)
    if signature is not None and told and isinstance(model, nn.Module):
        raise CaptureError(
            "the example inputs do not "
            f"fit {type(model).__name__}.forward({', '.join(signature.parameters)}): {told}",
            rule="input-names",
            site="example_inputs",
        )
    return args, named


def misfit(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return which arguments are too many or missing for a signature; empty if they fit."""
    unknown, missing = unknown_names(signature, kwargs), missing_names(signature, args, kwargs)
    told = [f"it does not take {_join_names(unknown)}"] * bool(unknown)
    told += [f"{_join_names(missing)} {'is' if len(missing) == 1 else 'are'} missing"] * bool(
        missing
    )
    if told:
        return ", and ".join(told)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return ""


def unknown_names(signature: inspect.Signature, kwargs: Mapping[str, Any]) -> list[str]:
    """Return the keyword arguments that a signature does not take."""
    takes = signature.parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in takes):
        return []
    by_name = {
        each.name for each in takes if each.kind not in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL)
    }
    return [name for name in kwargs if name not in by_name]


def missing_names(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[str]:
    """Return the arguments without a default that are not given."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes = list(signature.parameters.values())
    in_place = [each.name for each in takes if each.kind in positional][: len(args)]
    return [
        each.name
        for each in takes
        if each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        and each.name not in kwargs
        and each.name not in in_place
    ]


def _join_names(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
