"""What a pipeline was given when it failed, kept with the error for as long as that lives."""

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
        pipeline: Its passes.
        module: What it was given.
        context: What it was given beside.
    """

    pipeline: Pipeline
    module: GraphModule
    context: Context | None


# By error, beside it: an error is pickled with its fields, and a module is no part of one.
_RUNS: WeakKeyDictionary[BaseException, FailedRun] = WeakKeyDictionary()


def keep_failed_run(error: BaseException, run: FailedRun) -> None:
    """Keep what failed."""
    _RUNS[error] = run


def failed_run_of(error: BaseException) -> FailedRun | None:
    """Return what failed, if a pipeline did that can be reduced."""
    return _RUNS.get(error)


def is_reducible(module: GraphModule) -> bool:
    """Whether code can make the graph: as captured, without notes or observers of passes."""
    return facts_of(module) == frozenset({"captured"})
