"""Digests of metrics and items, by which a file of trials recognizes its search."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor

from quantfx.passes.inputs.leaves import leaves_with_paths
from quantfx.passes.observers.statistics.digests import call_digest, joined

_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def items_digest(items: Iterable[Any]) -> str:
    """Return a hash of items, labels included, over plain values, tensors and values with bytes.

    Args:
        items: The user's items, nested in any way.
    """
    return joined(
        call_digest((path, _bytes_of(leaf)) for path, leaf in leaves_with_paths(item))
        for item in items
    )


def metric_digest(metric: object) -> str:
    """Return a hash of what a metric computes: its code and the values that it holds.

    For a function these are bytecode, constants, defaults and closure; for a partial also its
    arguments; for a method or another callable object also its attributes. Plain values, tensors,
    arrays, functions, and lists, tuples, sets and dictionaries of these are compared by value; all
    others by class alone. A metric that changes what it holds, such as a list of calls, has another
    hash next time. Globals that it reads are not hashed. Bytecode differs between versions of
    Python.

    Args:
        metric: A function, or the name of a metric.
    """
    text = "\n".join(_parts(metric, {}))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parts(value: object, seen: dict[int, object]) -> Iterator[str]:
    """Yield what distinguishes a value from others; an object met again is skipped."""
    if isinstance(value, _PLAIN):
        yield repr(value)
        return
    yield f"{type(value).__module__}.{type(value).__qualname__}"
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept, so that its id is not given to another
    if isinstance(value, Tensor) or hasattr(value, "tobytes"):
        yield call_digest([("", _bytes_of(value))])
    elif isinstance(value, (set, frozenset)):  # in no order of their own
        yield from sorted("\n".join(_parts(each, seen)) for each in value)
    else:
        for each in _held(value):
            yield from _parts(each, seen)
    yield "."  # of the list


def _held(value: Any) -> Iterator[object]:
    """Yield the values that make up a value that is not plain."""
    if isinstance(value, CodeType):
        yield from (value.co_code, value.co_names, value.co_consts)
    elif isinstance(value, FunctionType):
        yield from (value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__)
        yield from map(_content, value.__closure__ or ())
    elif isinstance(value, MethodType):
        yield from (value.__func__, type(value.__self__), getattr(value.__self__, "__dict__", None))
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, type) or not callable(value):
        yield getattr(value, "__qualname__", "")
    else:
        yield from (type(value).__call__, getattr(value, "__dict__", None))


def _bytes_of(leaf: Any) -> object:
    """Return what a digest hashes for a leaf: its value, its bytes or else its class."""
    if isinstance(leaf, (Tensor, *_PLAIN)):
        return leaf
    if hasattr(leaf, "tobytes"):
        about = [str(getattr(leaf, name, "")) for name in ("dtype", "shape", "mode", "size")]
        return (*about, leaf.tobytes())
    return type(leaf)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a function that closes over a name not bound yet
        return None
