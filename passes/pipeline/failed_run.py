"""The input of a pipeline that failed, kept as long as the error lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch.fx import GraphModule

from quantfx.passes.graph.facts import facts_of
from quantfx.passes.pipeline.base import Context

if TYPE_CHECKING:
    from quantfx.passes.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class FailedRun:
    """A run of a pipeline that raised.

    Attributes:
        pipeline: The pipeline.
        module: The module it was given.
        context: The context it was given.
    """

    pipeline: Pipeline
    module: GraphModule
    context: Context | None


# Keyed by error and not a field of it: fields are pickled, and a module must not be.
_RUNS: WeakKeyDictionary[BaseException, FailedRun] = WeakKeyDictionary()


def keep_failed_run(error: BaseException, run: FailedRun) -> None:
    """Keep a failed run with its error."""
    _RUNS[error] = run


def failed_run_of(error: BaseException) -> FailedRun | None:
    """Return the failed run of an error; None if there is none that can be reduced."""
    return _RUNS.get(error)


def is_reducible(module: GraphModule) -> bool:
    """Whether code can recreate the graph: as captured, without notes or observers of passes."""
    return facts_of(module) == frozenset({"captured"})
