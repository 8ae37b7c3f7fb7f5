"""Backends, as data and lists of passes.

Your own backend is a ``Backend`` with a recipe (a pattern set and the specs of its tensors), three
pipelines, and kernel families. x86's ``PREPARE``, ``CONVERT`` and ``LOWER`` are a start.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from quantfx.backends import catalog
from quantfx.backends.backend import Backend
from quantfx.backends.checks import targets
from quantfx.backends.checks.targets import Target
from quantfx.backends.native import native
from quantfx.backends.qat import Qat
from quantfx.backends.x86 import CONVERT, LOWER, PREPARE, x86
from quantfx.backends.xpu import xpu
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.pipeline.known_passes import add_known_passes
from quantfx.patterns.errors import QuantfxError, unknown_name

__all__ = [
    "CONVERT",
    "LOWER",
    "NAMES",
    "PREPARE",
    "Backend",
    "Qat",
    "Target",
    "get",
    "native",
    "x86",
    "xpu",
]


add_known_passes(catalog.NAMES, catalog.passes)

_BACKENDS: dict[str, Callable[..., Backend]] = {"x86": x86, "xpu": xpu, "native": native}
NAMES = tuple(_BACKENDS)


def get(
    name: str, *, target: str = "host", config: ConfigLike = "static", **options: Any
) -> Backend:
    """Return the backend called ``name``.

    Args:
        name: ``x86``, ``xpu`` or ``native``.
        target: The instruction set by name, ``"host"`` for this machine's, or ``"any"``, which uses
            the full range and saturates on CPUs without VNNI.
        config: What is quantized how: a mode for the whole model, a `Config`, or a file of one.
        options: Options of the backend's function, e.g. ``reduce_range=True``.

    Raises:
        QuantfxError: the backend, target or option does not exist; names the nearest.
    """
    if name not in _BACKENDS:
        known = list(_BACKENDS)
        raise unknown_name(QuantfxError, "backend", name, known)
    make = _BACKENDS[name]
    known_options = options_of(name)
    for option in options:
        if option not in known_options:
            raise unknown_name(
                QuantfxError, "option", option, known_options, of=f"backend '{name}'"
            )
    backend = make(None if target == "any" else targets.get(target), **options)
    return backend.with_config(config)


def options_of(name: str) -> tuple[str, ...]:
    """Return the options of ``get`` for the backend called ``name``, without target and config."""
    return tuple(inspect.signature(_BACKENDS[name]).parameters)[1:]
