"""Call the methods of a model so that they call another module in its place."""

from __future__ import annotations

import copy
import functools
import inspect
from types import MethodType
from typing import Any

from torch import nn

_STAND_IN, _MODEL = "_quantfx_stand_in", "_quantfx_model"


class ModelMethods:
    """Methods of a model as if calling the model were calling a stand-in for it.

    A method such as ``generate`` calls the model with ``self(...)``. Here its ``self`` is of a
    subclass of the model's class, with the model's own attributes: what a method reads and writes
    is the model's, and only the call is another. A copy or pickle of that ``self`` is the model's,
    and where a method returns it, it returns the stand-in.
    """

    def __init__(self) -> None:
        self._kind: Any = None

    def bound(self, found: Any, model: nn.Module, stand_in: nn.Module) -> Any:
        """Return an attribute of the model; a method of it as one that calls ``stand_in``.

        Methods of classes with ``__slots__``, which no other object can share, are the model's.
        """
        if not inspect.ismethod(found) or found.__self__ is not model or _has_slots(type(model)):
            return found
        if self._kind is None:  # made late: most models are never asked
            self._kind = _calling_kind(type(model))
        caller: Any = object.__new__(self._kind)
        object.__setattr__(caller, "__dict__", model.__dict__)
        object.__setattr__(caller, _STAND_IN, stand_in)
        object.__setattr__(caller, _MODEL, model)
        method = MethodType(found.__func__, caller)

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return stand_in if result is caller else result

        return call


class _Quiet:
    """Runs no ``__init_subclass__`` of the model's class, which may register classes."""

    __slots__ = ()

    def __init_subclass__(cls, **_: Any) -> None:
        pass


def _calling_kind(own: type[nn.Module]) -> type:
    """Return a subclass whose instances are called as their stand-in."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, _STAND_IN)(*args, **kwargs)

    body: dict[str, Any] = {
        "__call__": call,
        "__copy__": lambda self: copy.copy(getattr(self, _MODEL)),
        "__deepcopy__": lambda self, memo: copy.deepcopy(getattr(self, _MODEL), memo),
        # By a function that every process has, since a pickle may not be of another class.
        "__reduce_ex__": lambda self, _: (copy.copy, (getattr(self, _MODEL),)),
        "__slots__": (_STAND_IN, _MODEL),
        "__module__": own.__module__,
        "__qualname__": own.__qualname__,
    }
    return type(own.__name__, (_Quiet, own), body)


def _has_slots(kind: type) -> bool:
    return any(each.__dict__.get("__slots__") for each in kind.__mro__)
