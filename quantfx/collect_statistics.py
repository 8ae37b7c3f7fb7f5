"""One pass over the data for every recipe: ``quantfx.collect``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch.fx import GraphModule

from quantfx.accuracy.ranks import Ranks
from quantfx.backends.backend import Backend
from quantfx.make_result import choose_backend
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.config.config import Config
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observe.statistics.record_statistics import record_statistics
from quantfx.passes.observe.statistics.record_tensors import RecordTensors
from quantfx.passes.observers.statistics.digests import ModelDigest
from quantfx.passes.observers.statistics.statistics import Statistics


def collect(
    model: Model,
    example_inputs: Examples = (),
    batches: Iterable[Any] = (),
    *,
    backend: str | Backend = "x86",
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
    check_inputs: bool = True,
    layers: bool = True,
    group: Any = None,
) -> Statistics:
    """Return the statistics of every tensor that a recipe may quantize.

    ``quantize(..., statistics=...)`` takes them instead of data, with any config and observer of
    the same backend. The result is bit for bit the same as from the batches.

    Args:
        model: As for ``quantize``.
        example_inputs: As for ``quantize``; give it the same.
        batches: As for ``calibrate``.
        backend: A backend, or the name of one, made for this host. Of its config only matters
            which attention it quantizes, if any: that has tensors of its own.
        example_kwargs: Keyword arguments the model accepts.
        dynamic_shapes: As for ``quantize``; give it the same.
        input_fn: Turns what ``batches`` yields into a batch.
        progress: Show a progress bar where the terminal allows it.
        check_inputs: As for ``quantize``; give it the same.
        layers: Also record what repairs need: second moments of layers' inputs, and a sample of the
            model's inputs.
        group: A process group of torch.distributed, e.g. ``torch.distributed.group.WORLD``. Each
            process gives its own batches; all get the merged statistics, in the order of ranks.

    Raises:
        CaptureError: as ``quantize``.
        CalibrationError: as ``calibrate``; if one process fails, all raise.
    """

    def record() -> Statistics:
        given = given_model(model, example_inputs, example_kwargs, dynamic_shapes)
        graph = capture_given(given, check_inputs=check_inputs, compare=False)
        chosen = choose_backend(backend, None)
        return collect_graph(
            graph, chosen, batches, input_fn=input_fn, progress=progress, layers=layers
        )

    return Statistics.merge(*Ranks(group).all_do(record))


def collect_graph(
    graph: GraphModule,
    backend: Backend,
    batches: Iterable[Any],
    *,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
    layers: bool = True,
) -> Statistics:
    """Return the statistics of the tensors of a captured graph.

    Args:
        graph: A graph of ``capture``; not changed.
        backend: The backend; tensors that its templates quantize are recorded.
        batches: As for ``calibrate``.
        input_fn: As for ``calibrate``.
        progress: As for ``calibrate``.
        layers: As for ``collect``.

    Raises:
        CalibrationError: as ``calibrate``.
    """
    static = backend.with_config(_static(backend.recipe.config))
    pipeline = static.prepare_pipeline.replace("insert-observers", RecordTensors(layers))
    if CheckConfig.name in pipeline.names:  # a backend checks its config when it prepares
        pipeline = pipeline.without(CheckConfig.name)
    prepared = pipeline.run(graph, static.context)
    return record_statistics(
        prepared, batches, ModelDigest.of(graph), input_fn=input_fn, progress=progress
    )


def _static(config: Config) -> Config:
    """Return the config that quantizes all that may be, and on request what ``config`` asks for."""
    asked = (replace(rule, specs=()) for rule in config.call_rules if rule.mode == "static")
    return Config("static", tuple(asked))
