"""Show a prepared graph the data for its ranges and its backend's repairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.collect_statistics import collect_graph
from quantfx.passes.errors import ArgumentError
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observe.statistics.fill_observers import fill_observers
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.patterns.errors import warn


def show_data(
    prepared: GraphModule,
    graph: GraphModule,
    backend: Backend,
    calibration: Iterable[Any] | None,
    statistics: Statistics | None = None,
    *,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
) -> Statistics | None:
    """Run ``calibration`` once if given, or fill observers from ``statistics``.

    Args:
        prepared: A graph of ``backend.prepare``; its observers have seen the data afterwards.
        graph: The graph that was prepared.
        backend: The backend that prepared it.
        calibration: As for ``calibrate``.
        statistics: Statistics of the same model, instead of ``calibration``.
        input_fn: As for ``calibrate``.
        progress: As for ``calibrate``.

    Returns:
        The statistics that were given, or collected because a pass needs them; else None.

    Raises:
        ArgumentError: both are given, or ``statistics`` is not a ``Statistics``.
        CalibrationError: as ``calibrate``, or the statistics belong to another model.
    """
    if statistics is not None:
        _require_statistics(statistics, backend)
        if calibration is not None:
            message = "both calibration= and statistics= were given"
            fix = "give the statistics alone: they hold what the batches told"
            raise ArgumentError(message, rule="two-calibrations", site="statistics", fix=fix)
        statistics.require_model(graph)
    elif calibration is not None and backend.needs_statistics:
        statistics = collect_graph(
            graph, backend, calibration, input_fn=input_fn, progress=progress
        )
    elif calibration is not None:
        calibrate(prepared, calibration, input_fn=input_fn, progress=progress)
    if statistics is not None:
        fill_observers(prepared, statistics)
    return statistics


def _require_statistics(given: object, backend: Backend) -> None:
    if not isinstance(given, Statistics):
        message = f"statistics= is a {type(given).__name__}, not quantfx.Statistics"
        fix = "give what quantfx.collect or quantfx.Statistics.load returns"
        raise ArgumentError(message, rule="wrong-type", site="statistics", fix=fix)
    if backend.needs_statistics and not given.layers:
        message = "the statistics tell nothing of layers, and nothing can be repaired by them"
        warn(
            message,
            rule="not-recorded",
            site="statistics",
            fix="collect them with layers=True",
            stacklevel=3,
        )
