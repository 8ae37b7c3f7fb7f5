"""Give a prepared graph the data that its ranges, and the repairs of its backend, come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.collect_statistics import collect_graph
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observe.statistics.fill_observers import fill_observers
from quantfx.passes.observers.statistics.statistics import Statistics


def show_data(
    prepared: GraphModule,
    graph: GraphModule,
    backend: Backend,
    calibration: Iterable[Any],
    *,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
) -> Statistics | None:
    """Run ``calibration`` once; return its statistics if a pass of ``backend.convert`` needs them.

    Args:
        prepared: With observers, from ``backend.prepare``; they have seen the data afterwards.
        graph: What was prepared.
        backend: What prepared it.
        calibration: As for ``calibrate``.
        input_fn: As for ``calibrate``.
        progress: As for ``calibrate``.

    Raises:
        CalibrationError: as ``calibrate``.
    """
    if not backend.needs_statistics:
        calibrate(prepared, calibration, input_fn=input_fn, progress=progress)
        return None
    found = collect_graph(graph, backend, calibration, input_fn=input_fn, progress=progress)
    fill_observers(prepared, found)
    return found
