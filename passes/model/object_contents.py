"""The content of an object of any kind, part by part, so that it can be compared and restored."""

from __future__ import annotations

import functools
import sys
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Pairs = list[tuple[Any, Any]]

_OWN = frozenset(vars(nn.Module()))  # attributes of every module: parameters, hooks, the mode
_STORED = ("_parameters", "_buffers", "_modules")
_VALUES = (int, float, complex, bool, str, bytes, torch.dtype, torch.device)


class Part(ABC):
    """One part of an object's content.

    Args:
        owner: The object.
        path: The user's name for the object.
        is_plain: Whether a change is one of plain attributes, and not of buffers or parameters,
            which a graph follows.
    """

    def __init__(self, owner: Any, path: str, *, is_plain: bool = True) -> None:
        self.owner = owner
        self.path = path
        self.is_plain = is_plain
        self.before = self.now()

    @abstractmethod
    def now(self) -> Pairs:
        """Return the current keys and values."""

    @abstractmethod
    def put(self, pairs: Pairs) -> None:
        """Make the object hold exactly these keys and values."""

    def name(self, key: Any) -> str:
        """Return the user's name for the value under ``key``."""
        return self.path

    def changed(self) -> list[str]:
        """Return the names of values that changed."""
        before, now = dict(self._name_pairs(self.before)), dict(self._name_pairs(self.now()))
        keys = [*before, *(key for key in now if key not in before)]
        found = [
            self.name(key)
            for key in keys
            if key not in before or key not in now or not _is_same(before[key], now[key])
        ]
        if not found and not all(map(_is_same, before, now)):
            found = [self.path]  # in another order
        return found

    def restore(self) -> None:
        """Restore the content."""
        if self.changed():
            self.put(self.before)

    def _name_pairs(self, pairs: Pairs) -> Pairs:
        return pairs


class Attributes(Part):
    """The attributes of an object that has a ``__dict__``; for a module, only the user's own."""

    def now(self) -> Pairs:
        """Return names and values."""
        hidden: frozenset[str] = _OWN if isinstance(self.owner, nn.Module) else frozenset()
        return [(name, value) for name, value in vars(self.owner).items() if name not in hidden]

    def put(self, pairs: Pairs) -> None:
        """Write past ``__setattr__``, which may be the user's own."""
        attributes = vars(self.owner)
        for name, _ in self.now():
            del attributes[name]
        attributes.update(pairs)

    def name(self, key: Any) -> str:
        """Return the path of one attribute."""
        return f"{self.path}.{key}"


class Slots(Attributes):
    """The attributes of an object whose class has ``__slots__``."""

    def now(self) -> Pairs:
        """Return names and values of the slots that are set."""
        found = [(name, getattr(self.owner, name, _UNSET)) for name in slots_of(self.owner)]
        return [(name, value) for name, value in found if value is not _UNSET]

    def put(self, pairs: Pairs) -> None:
        """Write past ``__setattr__``, which may be the user's own."""
        before = dict(pairs)
        for name, _ in self.now():
            if name not in before:
                object.__delattr__(self.owner, name)
        for name, value in pairs:
            object.__setattr__(self.owner, name, value)


class Items(Part):
    """The items of a dict, in order, bypassing overridden methods of a subclass."""

    def now(self) -> Pairs:
        """Return keys and values."""
        return list(self._kind.items(self.owner))

    def put(self, pairs: Pairs) -> None:
        """Refill the dict."""
        self._kind.clear(self.owner)
        for key, value in pairs:
            self._kind.__setitem__(self.owner, key, value)

    @property
    def _kind(self) -> Any:
        return OrderedDict if isinstance(self.owner, OrderedDict) else dict


class Stored(Items):
    """The parameters, buffers or submodules of a module."""

    def name(self, key: Any) -> str:
        """Return the path of one of them."""
        return f"{self.path}.{key}"


class Elements(Part):
    """The elements of a list, a deque or a set."""

    def now(self) -> Pairs:
        """Return indices and elements."""
        return list(enumerate(self.owner))

    def put(self, pairs: Pairs) -> None:
        """Refill the container."""
        values = [value for _, value in pairs]
        if isinstance(self.owner, list):
            list.__setitem__(self.owner, slice(None), values)
        elif isinstance(self.owner, deque):
            deque.clear(self.owner)
            deque.extend(self.owner, values)
        else:
            set.clear(self.owner)
            set.update(self.owner, values)


class Cell(Part):
    """A variable of a function that a nested function uses."""

    def now(self) -> Pairs:
        """Return its value, if assigned."""
        try:
            return [("", self.owner.cell_contents)]
        except ValueError:  # not assigned yet
            return []

    def put(self, pairs: Pairs) -> None:
        """Assign the value."""
        for _, value in pairs:
            self.owner.cell_contents = value


class Globals(Part):
    """The global variables that a function refers to."""

    def now(self) -> Pairs:
        """Return names and values."""
        known = self.owner.__globals__
        return [(name, known[name]) for name in named_in(self.owner.__code__) if name in known]

    def put(self, pairs: Pairs) -> None:
        """Assign to them; delete those that are new."""
        known, before = self.owner.__globals__, dict(pairs)
        for name, _ in self.now():
            if name not in before:
                del known[name]
        known.update(before)

    def name(self, key: Any) -> str:
        """Return the path of one of them."""
        return f"{self.owner.__module__}.{key}"


class ClassVariables(Part):
    """The attributes of a class that are neither code nor Python's own."""

    def now(self) -> Pairs:
        """Return names and values."""
        return [
            (name, value)
            for name, value in vars(self.owner).items()
            if not (name.startswith("__") or hasattr(value, "__get__"))
        ]

    def put(self, pairs: Pairs) -> None:
        """Assign to them; delete those that are new."""
        before = dict(pairs)
        for name, _ in self.now():
            if name not in before:
                delattr(self.owner, name)
        for name, value in pairs:
            if vars(self.owner).get(name) is not value:
                setattr(self.owner, name, value)

    def name(self, key: Any) -> str:
        """Return the path of one of them."""
        return f"{self.owner.__qualname__}.{key}"


class FunctionCache(Part):
    """The cache of ``functools.cache`` or ``lru_cache``; emptied if it gained an entry."""

    def now(self) -> Pairs:
        """Return how often the function was called."""
        return [("", self.owner.cache_info().misses)]

    def put(self, pairs: Pairs) -> None:
        """Forget all results."""
        self.owner.cache_clear()


class Array(Part):
    """The values of a numpy array."""

    def now(self) -> Pairs:
        """Return a copy."""
        return [("", self.owner.copy())]

    def put(self, pairs: Pairs) -> None:
        """Write the values back."""
        self.owner[...] = pairs[0][1]


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device


class Values(Part):
    """The values of a tensor."""

    def now(self) -> Pairs:
        """Return a copy."""
        return [("", self.owner.detach().clone())]

    def put(self, pairs: Pairs) -> None:
        """Write the values back."""
        before: Tensor = pairs[0][1]
        with torch.no_grad():
            if _form(self.owner) == _form(before):
                self.owner.copy_(before)
            else:
                self.owner.data = before

    def changed(self) -> list[str]:
        """Compare values: a write through ``.data`` does not change the version."""
        before: Tensor = self.before[0][1]
        same = _form(self.owner) == _form(before) and torch.equal(self.owner.detach(), before)
        return [] if same else [self.path]


COPIES = (Values, Array, FunctionCache)
"""Parts whose values are copies, not objects that the owner refers to."""


def _cached() -> None: ...


LRU_CACHE = type(functools.lru_cache(_cached))


_KINDS: tuple[tuple[Any, type[Part]], ...] = (
    (dict, Items),
    ((list, deque, set), Elements),
    (CellType, Cell),
    (LRU_CACHE, FunctionCache),
)


class _Unset:
    pass


_UNSET = _Unset()


def is_value(value: Any) -> bool:
    """Whether ``value`` is immutable and refers to no other object."""
    return value is None or isinstance(value, _VALUES)


def parts_of(value: Any, path: str) -> Iterator[Part]:
    """Yield the parts of an object; none for an immutable object."""
    if isinstance(value, Tensor):
        # The values of others cannot be copied and compared.
        ordinary = type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided
        if ordinary and not (value.is_meta or value.is_nested):
            yield Values(value, path)
    elif isinstance(value, nn.Module):
        yield Attributes(value, path)
        for kind in _STORED:
            stored = vars(value).get(kind)
            if isinstance(stored, dict):  # a script module has something else here
                yield Stored(stored, path, is_plain=False)
    elif isinstance(value, (type, FunctionType)):
        if not _is_installed(value):
            yield ClassVariables(value, path) if isinstance(value, type) else Globals(value, path)
    elif not isinstance(value, (tuple, ModuleType)):
        yield from _parts_of_object(value, path)


def _parts_of_object(value: Any, path: str) -> Iterator[Part]:
    for kind, part in _KINDS:
        if isinstance(value, kind):
            yield part(value, path)
    if _is_array(value):
        yield Array(value, path)
    if slots_of(value):
        yield Slots(value, path)
    if isinstance(getattr(value, "__dict__", None), dict):
        yield Attributes(value, path)


def named_in(code: CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes in a function and its nested functions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from named_in(constant)


def slots_of(value: Any) -> list[str]:
    """Return the names of the slots of an object."""
    found: list[str] = []
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name in ("__dict__", "__weakref__"):
                continue
            private = name.startswith("__") and not name.endswith("__")
            found.append(f"_{kind.__name__.lstrip('_')}{name}" if private else name)
    return found


def _is_installed(value: type | FunctionType) -> bool:
    """Whether code is a library's: what a library stores in its globals stays there."""
    module = sys.modules.get(value.__module__)
    return "-packages" in (getattr(module, "__file__", None) or "")


def _is_array(value: Any) -> bool:
    """Whether ``value`` is a numpy array; quantfx does not depend on numpy."""
    kind = type(value)
    return kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def _is_same(one: Any, other: Any) -> bool:
    """Whether nothing was assigned: numbers and text compare by value, objects by identity."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if _is_array(one):
        return bool(one.tobytes() == other.tobytes())
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return isinstance(one, _VALUES) and bool(one == other or (one != one and other != other))
