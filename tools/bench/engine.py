"""The type of engines, and the errors of an engine without figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.workload import Workload

# Takes the workload's positional tensors; returns tensors, nested like the model's or flat.
Run = Callable[..., Any]


class EngineError(QuantfxError):
    """An engine failed; its row states the reason, and other engines go on."""


class EngineUnavailable(EngineError):
    """The engine is not available here: a package or a CPU feature is missing."""


@dataclass(frozen=True)
class Engine:
    """A way to run a network.

    Attributes:
        name: As given to ``--engines``.
        title: A short description.
        build: Makes the network ready to run on a number of threads. It runs in its own process,
            where it may import and change anything but the workload's model.
    """

    name: str
    title: str
    build: Callable[[Workload, int], Run]
