"""Data for the repairs of a pipeline: requested before calibration, and handed over."""

from __future__ import annotations

from torch.fx import GraphModule

from quantfx.passes.errors import PipelineError
from quantfx.passes.observers.statistics.sample import Leaves, first_rows, sample_of, want_sample
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.pipeline.pipeline import Pipeline


def needing_statistics(pipeline: Pipeline) -> list[str]:
    """Return the passes that require statistics."""
    return [each.name for each in pipeline if each.needs_statistics and not each.wants_samples]


def refuse_statistics(pipeline: Pipeline, where: str) -> None:
    """Refuse passes that require statistics where no data is collected.

    Args:
        pipeline: The conversion pipeline.
        where: What collects no statistics, for the message.

    Raises:
        PipelineError: there is such a pass; names it.
    """
    for name in needing_statistics(pipeline):
        message = f"{name} needs statistics of data, but {where} collects none"
        fix = f"leave it out: backend.convert_pipeline.without('{name}')"
        raise PipelineError(message, rule="no-statistics", site=name, fix=fix)


def ask_for_sample(prepared: GraphModule, pipeline: Pipeline) -> None:
    """Let calibration of ``prepared`` keep as many samples as passes of ``pipeline`` need."""
    if rows := _rows(pipeline):
        want_sample(prepared, rows)


def sample_for(
    pipeline: Pipeline, prepared: GraphModule, statistics: Statistics | None
) -> tuple[Leaves, ...]:
    """Return the sample that passes of ``pipeline`` use: equal for data and for its statistics."""
    if statistics is None:
        return sample_of(prepared)
    rows = _rows(pipeline)
    return first_rows(statistics.sample, rows) if rows else ()


def _rows(pipeline: Pipeline) -> int:
    return max((each.wants_samples for each in pipeline), default=0)
