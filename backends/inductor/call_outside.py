"""Calls that a compiler of the model around runs as they are: inside is compiled already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from quantfx.patterns.errors import QuantfxError


def call_outside(exported: str, reason: str) -> Callable[..., Any]:
    """Return what calls ``module.call_now(args, kwargs)`` in the middle of what others compile.

    Args:
        exported: Of the error where the module is exported, which it cannot be.
        reason: For torch.compile, why it stays out.
    """

    def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_exporting():
            raise QuantfxError(exported, rule="not-exportable")
        return module.call_now(args, kwargs)

    disable: Any = torch.compiler.disable  # torch declares no types
    called: Callable[..., Any] = disable(call, reason=reason)
    return called
