"""Call the methods of a model so that they call another module in its place."""

from __future__ import annotations

import inspect
from types import MethodType
from typing import Any

from torch import nn


class CallingModel:
    """Methods of ``model`` as if calling the model were calling ``stand_in``.

    A method such as ``generate`` calls the model with ``self(...)``. Here its ``self`` is of a
    subclass of the model's class, with the model's own attributes: what a method reads and writes
    is the model's, and only the call is another.

    Args:
        model: Not changed.
        stand_in: Called with what a method gives ``self(...)``.
    """

    def __init__(self, model: nn.Module, stand_in: nn.Module) -> None:
        def call(_: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return stand_in(*args, **kwargs)

        own = type(model)
        body = {"__call__": call, "__module__": own.__module__, "__qualname__": own.__qualname__}
        kind: Any = type(own.__name__, (own,), body)
        self._model = model
        self._caller = object.__new__(kind)
        object.__setattr__(self._caller, "__dict__", model.__dict__)

    def bound(self, found: Any) -> Any:
        """Return an attribute of the model; a method of it as one that calls the stand-in."""
        if inspect.ismethod(found) and found.__self__ is self._model:
            return MethodType(found.__func__, self._caller)
        return found
