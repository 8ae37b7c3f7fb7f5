"""A reference to the user's float model that does not keep it alive."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from quantfx.passes.model.given import Model


class ModelReference:
    """A reference to a model, valid while somebody else holds the model.

    Args:
        model: A module or a program, referred to weakly, or a path, which is kept. Functions are
            not referred to: a bound method is gone right after its call. None refers to nothing.
    """

    def __init__(self, model: Model | None) -> None:
        self._path = model if isinstance(model, (str, Path)) else None
        held = isinstance(model, (nn.Module, ExportedProgram))
        self._held: weakref.ref[Any] | None = weakref.ref(model) if held else None

    def get(self, given: Model | None = None) -> Model | None:
        """Return ``given`` if not None, else the model; None if it no longer exists."""
        if given is not None:
            return given
        if self._path is not None:
            return self._path
        return None if self._held is None else self._held()
