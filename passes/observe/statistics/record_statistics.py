"""Run data once through a graph with recorders."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch.fx import GraphModule

from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.graphs import Site, all_graphs, module_calls
from quantfx.passes.inputs.leaves import leaves_of
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observe.statistics.recorders import LayerRecorder, TensorRecorder
from quantfx.passes.observers.statistics.digests import ModelDigest, call_digest
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs
from quantfx.passes.observers.statistics.sample import Sample, rows_of
from quantfx.passes.observers.statistics.statistics import Statistics

_Kind = TypeVar("_Kind")


def record_statistics(
    prepared: GraphModule,
    batches: Iterable[Any],
    model: ModelDigest,
    *,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
) -> Statistics:
    """Return the statistics of ``batches`` for every tensor that has a recorder.

    Args:
        prepared: A graph with recorders from ``record-tensors``, which have recorded nothing yet.
        batches: As for ``calibrate``.
        model: Digest of the captured graph.
        input_fn: As for ``calibrate``.
        progress: As for ``calibrate``.

    Raises:
        CalibrationError: as ``calibrate``; or there are no recorders.
    """
    tensors = _recorders(prepared, TensorRecorder)
    layers = _recorders(prepared, LayerRecorder)
    if not tensors:
        fix = "prepare with record-tensors in place of insert-observers"
        raise CalibrationError("the graph has no recorders", rule="not-prepared", fix=fix)
    calls = _Calls(inspect.signature(prepared.forward), layers)
    hook = prepared.register_forward_pre_hook(calls.note, with_kwargs=True)
    try:
        count = calibrate(prepared, batches, input_fn=input_fn, progress=progress)
    finally:
        hook.remove()
    groups = {group.sites: group for recorder in tensors for group in recorder.groups}
    return Statistics(
        {each.own.sites[0]: each.result() for each in tensors if not each.spoilt},
        {sites: group.result() for sites, group in groups.items()},
        _layer_inputs(layers),
        model,
        tuple(calls.digests),
        count,
        calls.rows,
        calls.sample.calls,
    )


class _Calls:
    """Notes each call, and tells the recorders of layers at which patch to start.

    The inputs decide the start: a batch gives the same patches in any process and order.
    """

    def __init__(self, signature: inspect.Signature, layers: list[LayerRecorder]) -> None:
        self._signature = signature
        self._layers = layers
        self.digests: list[str] = []
        self.rows = 0
        self.sample = Sample()

    def note(self, module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves = leaves_of(self._signature, args, kwargs)
        self.digests.append(call_digest(leaves))
        call = tuple(leaf for _, leaf in leaves)
        self.rows += rows_of(call)
        if self._layers:
            self.sample.add(self.digests[-1], call)
        for each in self._layers:
            each.offset = int(self.digests[-1], 16)


def _recorders(module: GraphModule, kind: type[_Kind]) -> list[_Kind]:
    return [each for _, graph in all_graphs(module) for _, each in module_calls(graph, kind)]


def _layer_inputs(layers: list[LayerRecorder]) -> dict[Site, LayerInputs]:
    found: dict[Site, LayerInputs] = {}
    for each in layers:
        if (inputs := each.result()) is not None:
            found |= dict.fromkeys(each.sites, inputs)
    return found
