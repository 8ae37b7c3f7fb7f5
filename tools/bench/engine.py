"""What an engine is, and why one has no figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.workload import Workload

# Takes the workload's positional tensors; returns tensors, nested like the model's or flat.
Run = Callable[..., Any]


class EngineError(QuantfxError):
    """An engine failed; it becomes a row with this reason and the others go on."""


class EngineUnavailable(EngineError):
    """The engine cannot be had here: a package or a CPU feature is missing."""


@dataclass(frozen=True)
class Engine:
    """A way to run a network.

    Attributes:
        name: As given to ``--engines``.
        title: What it is, in a few words.
        build: Makes the network ready to run on that many threads. It runs in a process of its
            own, where it may import and change what it likes, but not the workload's model.
    """

    name: str
    title: str
    build: Callable[[Workload, int], Run]
