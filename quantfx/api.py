"""The one-call interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.make_result import choose_backend, make_result
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.draw.diff.drawing import diff_graphs
from quantfx.passes.draw.diff.graph_diff import GraphDiff
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.patterns.errors import QuantfxError
from quantfx.result import Result
from quantfx.show_data import show_data


def quantize(
    model: Model,
    example_inputs: Examples = (),
    *,
    calibration: Iterable[Any] | None = None,
    statistics: Statistics | None = None,
    backend: str | Backend = "x86",
    config: ConfigLike | None = None,
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_fn: Callable[[Any], Any] | None = None,
    strict: bool = True,
    progress: bool = True,
    check_inputs: bool = True,
    compare: bool = True,
) -> Result:
    """Quantize ``model`` for this machine and account for every operator.

    Args:
        model: In eval mode; not changed. A module, a function of tensors, an ``ExportedProgram`` or
            the path of its ``.pt2`` file, whose own examples do if none are given.
        example_inputs: Arguments the model accepts: one tensor, a tuple of positional or a mapping
            (a dict, a tokenizer's BatchEncoding) of keyword arguments.
        calibration: Batches in the same forms, each with any number of rows: see ``calibrate``.
            Only static quantization needs them.
        statistics: Statistics of such batches from ``collect``, instead of ``calibration``: the
            same result in less time.
        backend: A backend, or the name of one, made for this host.
        config: What is quantized how: ``"static"``, ``"dynamic"``, ``"fp16"`` or ``"weight-only"``
            for the whole model, a `Config`, or the path of a TOML or JSON file. The backend's own
            by default, which is ``"static"``.
        example_kwargs: Keyword arguments the model accepts.
        dynamic_shapes: Free dimensions, as for ``torch.export.export``.
        input_fn: Turns what ``calibration`` yields into a batch, e.g. ``lambda b: b[0]``.
        strict: Raise if the contract does not hold.
        progress: Show a progress bar where the terminal allows it.
        check_inputs: Make the result, in all its forms, refuse inputs that it would compute wrongly
            with, as for ``capture``.
        compare: Call the model and its graph twice with copies of the example inputs, warn if they
            differ, and refuse a model whose results depend on state outside of buffers.

    Raises:
        CaptureError: the model is in training mode, torch.export rejects it, or it keeps state in
            plain attributes.
        ConfigError: a rule selects nothing, or asks for what the backend cannot do.
        ContractError: there is nothing to quantize, or a planned site was not converted.
        CalibrationError: the data is empty, non-finite or does not fit the model; or the statistics
            belong to another model or lack a tensor.
    """
    chosen = choose_backend(backend, config)
    given = given_model(model, example_inputs, example_kwargs, dynamic_shapes)
    graph = capture_given(given, check_inputs=check_inputs, compare=compare)
    prepared = chosen.prepare(graph, strict=strict)
    seen = show_data(
        prepared, graph, chosen, calibration, statistics, input_fn=input_fn, progress=progress
    )
    quantized = chosen.convert(prepared, strict=strict, statistics=seen)
    inputs = ExampleInputs(given.args, given.kwargs, given.dynamic_shapes)
    return make_result(graph, quantized, chosen, inputs, strict=strict, model=model)


def draw(
    module: GraphModule | GraphDiff,
    path: str | Path,
    *,
    depth: int | None = None,
    around: str | None = None,
    heat: Mapping[str, float] | None = None,
) -> Path:
    """Draw ``module`` to ``path`` (.svg, .png or .dot) and return the path written.

    Args:
        module: A captured, prepared or quantized graph; or the result of ``diff``, which takes no
            options.
        path: The file; without Graphviz's ``dot`` program the DOT text is written beside it.
        depth: Collapse modules nested deeper than this; by default until the drawing is readable.
        around: Draw only the neighbourhood of this node or module.
        heat: SQNR in dB by the name of a node, which colours it: see ``Comparison.heat``.
    """
    from quantfx.tools.drawing.render import render

    if isinstance(module, GraphDiff):
        if (depth, around, heat) != (None, None, None):
            message = "the drawing of a difference takes no depth, around or heat"
            raise QuantfxError(message, rule="not-offered", site="draw")
        return render(module.to_dot(), path)
    from quantfx.tools.drawing.draw import draw as draw_module  # the facade reaches tools lazily

    return draw_module(module, path, depth=depth, around=around, heat=heat)


def html(
    graph: GraphModule | Mapping[str, GraphModule], path: str | Path, *, title: str = ""
) -> Path:
    """Write graphs as one page for a browser and return its path; for results see ``Result.html``.

    Args:
        graph: A captured, prepared or quantized graph, or several by the names of their stages.
        path: The file, e.g. ``model.html``.
        title: Title of the page; by default the file's name.
    """
    from quantfx.tools.html.page_data import graph_data
    from quantfx.tools.html.write_page import write_page

    graphs = {"graph": graph} if isinstance(graph, GraphModule) else graph
    return write_page(graph_data(graphs), path, title=title or Path(path).stem)


def diff(a: GraphModule | Result, b: GraphModule | Result) -> GraphDiff:
    """Return what appeared, vanished and changed from ``a`` to ``b``.

    The graphs may be two stages of a pipeline, two versions of a model, or results of two backends
    or recipes. Results are compared by their q/dq graphs and the kernels that they reach. Operators
    are paired by name, then by their computation and inputs: a different name alone is no
    difference.

    Args:
        a: A graph, or a result.
        b: A graph, or a result.
    """
    (before, kernels_a), (after, kernels_b) = map(_graph_and_kernels, (a, b))
    return diff_graphs(before, after, kernels=(kernels_a, kernels_b))


def _graph_and_kernels(of: GraphModule | Result) -> tuple[GraphModule, dict[str, str]]:
    if isinstance(of, GraphModule):
        return of, {}
    if not isinstance(of, Result):
        message = f"diff compares graphs and results, not {type(of).__name__}"
        fix = "capture the model first: quantfx.capture(model, example_inputs)"
        raise QuantfxError(message, rule="wrong-type", fix=fix)
    sites = of.report.sites
    return of.quantized, {str(s.site): s.compiled or s.kernel or s.status for s in sites}
