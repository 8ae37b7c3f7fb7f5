"""Calls of compiled modules, which an outer compiler leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from quantfx.patterns.errors import QuantfxError


def call_outside(exported: str, reason: str) -> Callable[..., Any]:
    """Return a function that calls ``module.call_now(args, kwargs)`` inside an outer compile.

    Args:
        exported: Message of the error on export, which is not possible.
        reason: Why torch.compile leaves it alone.
    """

    def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_exporting():
            raise QuantfxError(exported, rule="not-exportable")
        return module.call_now(args, kwargs)

    disable: Any = torch.compiler.disable  # torch declares no types
    called: Callable[..., Any] = disable(call, reason=reason)
    return called
