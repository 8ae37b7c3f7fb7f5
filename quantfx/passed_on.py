"""Give a module that stands for another the other's container methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from torch import nn

Kind = TypeVar("Kind", bound=type[Any])


# Of a class with an attribute ``model``, the other module.
_METHODS: dict[str, Callable[..., Any]] = {
    "__getitem__": lambda self, key: self.model[key],
    "__len__": lambda self: len(self.model),
    "__iter__": lambda self: iter(self.model),
    "__contains__": lambda self, key: key in self.model,
}


def kind_for(kind: Kind, model: nn.Module) -> Kind:
    """Return ``kind``, or a subclass with those container methods that the model has.

    Python looks such methods up in the class; one class with all of them would give every model a
    length.
    """
    make: Any = _kind
    found: Kind = make(kind, frozenset(name for name in _METHODS if hasattr(type(model), name)))
    return found


@cache
def _kind(kind: Any, names: frozenset[str]) -> Any:
    if not names:
        return kind
    body: dict[str, Any] = {name: _METHODS[name] for name in sorted(names)}
    return type(kind.__name__, (kind,), {**body, "__module__": kind.__module__})
