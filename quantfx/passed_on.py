"""Give a module that stands for another the other's container methods."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol, TypeVar

from torch import nn

Kind = TypeVar("Kind", bound=type[Any])


class _Standing(Protocol):
    @property
    def model(self) -> Any: ...


def _getitem(self: _Standing, key: Any) -> Any:
    return self.model[key]


def _len(self: _Standing) -> int:
    return len(self.model)


def _iter(self: _Standing) -> Iterator[Any]:
    return iter(self.model)


def _contains(self: _Standing, key: object) -> bool:
    return key in self.model


_METHODS = {
    "__getitem__": _getitem,
    "__len__": _len,
    "__iter__": _iter,
    "__contains__": _contains,
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
