"""The objects that an object refers to: finds a model's state wherever the model keeps it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from quantfx.passes.model.object_contents import LRU_CACHE, named_in

# Only these objects of the standard library are opened: locks, loggers, threads and files lead to
# everything in the process. Of torch's objects only modules are opened.
_OPENED = frozenset({"types", "collections", "functools", "builtins"})
_CODE = (type, FunctionType, LRU_CACHE)
_SHUT = (frozenset(sys.stdlib_module_names) - _OPENED) | {"torch", "numpy", "quantfx"}


def is_opened(value: Any) -> bool:
    """Whether the content of an object may be read."""
    if isinstance(value, (Tensor, nn.Module)):
        return True
    if isinstance(value, _CODE):
        return _is_users(value.__module__)
    if isinstance(value, ModuleType):
        return _is_users(value.__name__)
    return type(value).__name__ == "ndarray" or _root(type(value).__module__) not in _SHUT


def links_of(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield further objects that ``value`` refers to, with their paths: code, and tuples."""
    if isinstance(value, tuple):
        yield from ((path, item) for item in value)
    elif isinstance(value, MethodType):
        yield path, value.__self__
        yield path, value.__func__
    elif isinstance(value, functools.partial):
        yield from ((path, item) for item in (value.func, value.args, value.keywords))
    elif isinstance(value, LRU_CACHE):
        yield path, value.__wrapped__
    elif isinstance(value, FunctionType):
        yield from _links_of_function(value)
    elif isinstance(value, type):
        yield from _links_of_class(value, path)
    else:
        yield path, type(value)


def _links_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield a function's variables, and code that it may call: of its globals and of modules."""
    closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((f"{name} of {function.__qualname__}", cell) for name, cell in closure)
    names = set(named_in(function.__code__))
    known = function.__globals__
    for name in sorted(names & known.keys()):
        value = known[name]
        if isinstance(value, _CODE):
            yield f"{function.__module__}.{name}", value
        elif isinstance(value, ModuleType) and is_opened(value):
            inner = vars(value)
            found = ((each, inner[each]) for each in sorted(names & inner.keys()))
            yield from ((f"{value.__name__}.{each}", item) for each, item in found)


def _links_of_class(kind: type, path: str) -> Iterator[tuple[str, Any]]:
    yield from ((path, base) for base in kind.__bases__)
    for value in vars(kind).values():
        if isinstance(value, (staticmethod, classmethod)):
            yield path, value.__func__
        elif isinstance(value, property):
            yield path, value.fget
        elif isinstance(value, (FunctionType, LRU_CACHE)):
            yield path, value


def _is_users(module: object) -> bool:
    root = _root(module)
    return root not in _SHUT and root not in _OPENED


def _root(module: object) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""
