"""The user's float model, without keeping it alive."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from quantfx.passes.model.given import Model


class ModelReference:
    """Refers to a model as long as somebody else holds it.

    Args:
        model: A module or a program is referred to weakly, a path by itself. Functions are not
            referred to: a bound method is gone as soon as it was called. None refers to nothing.
    """

    def __init__(self, model: Model | None) -> None:
        self._path = model if isinstance(model, (str, Path)) else None
        held = isinstance(model, (nn.Module, ExportedProgram))
        self._held: weakref.ref[Any] | None = weakref.ref(model) if held else None

    def get(self, given: Model | None = None) -> Model | None:
        """Return ``given`` if there is one, else the model; None if it is gone."""
        if given is not None:
            return given
        if self._path is not None:
            return self._path
        return None if self._held is None else self._held()
