"""Find the sites of a model that rounding hurts most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.compare_result import float_graph, require_float_cache
from quantfx.given_options import given_options
from quantfx.make_result import choose_backend
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.report.compare.calls import calls_of
from quantfx.passes.report.sensitivity.estimate import estimate_sensitivity
from quantfx.passes.report.sensitivity.evaluate import Metric, OutputSQNR, evaluate_sites
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
from quantfx.passes.report.sensitivity.sensitivity import Sensitivity
from quantfx.passes.report.work import work_of
from quantfx.patterns.errors import QuantfxError
from quantfx.show_data import show_data

if TYPE_CHECKING:
    from quantfx.result import Result


class SensitivityOptions(TypedDict, total=False):
    """How to measure.

    Attributes:
        metric: Returns how good a model is, higher is better; used for the sites that ``evaluate``
            tries. By default the SQNR of the outputs.
        evaluate: How many of the costliest sites to try as well, with ``metric``.
        draws: Random vectors for each row; each takes another backward pass.
        seed: Seed of the random vectors.
        whole: Also run the q/dq graph and two more backward passes, so that ``win`` and ``predict``
            start from the measured error of all sites. This takes some 2.4 times as long.
        input_fn: Turns what ``batches`` yields into a batch.
        progress: Show a progress bar where the terminal allows it.
    """

    metric: Metric | None
    evaluate: int
    draws: int
    seed: int
    whole: bool
    input_fn: Callable[[Any], Any] | None
    progress: bool


@dataclass(frozen=True)
class _Settings:
    """The options with their defaults.

    Raises:
        QuantfxError: a number is out of range, or ``metric`` is given without ``evaluate``.
    """

    metric: Metric | None = None
    evaluate: int = 0
    draws: int = 1
    seed: int = 0
    whole: bool = False
    input_fn: Callable[[Any], Any] | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name, value, least in (("draws", self.draws, 1), ("evaluate", self.evaluate, 0)):
            if value < least:
                message = f"{name}={value} is less than {least}"
                raise QuantfxError(message, rule="number-range", site=name, fix=f"{name}={least}")
        if self.metric is not None and not self.evaluate:
            message = "metric= is asked of sites that are tried, and evaluate= says of none"
            raise QuantfxError(message, rule="option-value", site="metric", fix="give evaluate=5")


def sensitivity(
    model: Model,
    example: Examples = (),
    batches: Iterable[Any] = (),
    *,
    backend: str | Backend = "x86",
    config: ConfigLike | None = None,
    calibration: Iterable[Any] | None = None,
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    strict: bool = True,
    **options: Unpack[SensitivityOptions],
) -> Sensitivity:
    """Return what rounding each site costs at the outputs, and what leaving it float gains.

    One pass over the data estimates this for all sites: the float graph runs with gradients, each
    site adds its own error, and one backward pass gives the effect on the outputs. See
    ``passes/report/sensitivity/estimate.py`` for the formula and its sources. A call holds all
    activations of the float model twice; batches of few rows need less memory and give the same
    result.

    ``evaluate=k`` tries the k costliest sites, each rounded alone and each left float alone, with
    the ranges that calibration found.

    Args:
        model: As for ``quantize``; not changed, and given no ``.grad``.
        example: As for ``quantize``.
        batches: Batches to measure on, in the forms that ``calibrate`` takes.
        backend: As for ``quantize``.
        config: As for ``quantize``.
        calibration: Batches to calibrate with; ``batches`` by default.
        example_kwargs: As for ``quantize``.
        dynamic_shapes: As for ``quantize``.
        strict: As for ``quantize``.
        options: ``metric``, ``evaluate``, ``draws``, ``seed``, ``whole``, ``input_fn`` and
            ``progress``: see `SensitivityOptions`.

    Raises:
        ArgumentError: there is no option of that name.
        QuantfxError: an option is out of range, no gradient leads from an output to a site, or the
            metric fails.
        CaptureError: as for ``quantize``.
        CalibrationError: as for ``quantize``, also for ``batches``.
        ContractError: as for ``quantize``.
    """
    settings = given_options(_Settings, options, "sensitivity")
    chosen = choose_backend(backend, config)
    given = given_model(model, example, example_kwargs, dynamic_shapes)
    graph = capture_given(given, check_inputs=True, compare=False)
    prepared = chosen.prepare(graph, strict=strict)
    if calibration is None:
        batches = list(batches)  # it is read twice
    data = batches if calibration is None else calibration
    seen = show_data(
        prepared, graph, chosen, data, input_fn=settings.input_fn, progress=settings.progress
    )
    quantized = chosen.convert(prepared, strict=strict, statistics=seen)
    return _measure(prepared, quantized, chosen, batches, settings)


def result_sensitivity(
    result: Result,
    batches: Iterable[Any],
    inputs: ExampleInputs,
    model: Model | None,
    options: SensitivityOptions,
) -> Sensitivity:
    """Return the sensitivity of a result, see ``Result.sensitivity``.

    Args:
        result: The result to measure.
        batches: The batches to measure it on.
        inputs: The inputs that the model was captured with.
        model: The float model; None if it no longer exists.
        options: See `SensitivityOptions`.

    Raises:
        ArgumentError: there is no option of that name.
        QuantfxError: there is no float model, or no gradient leads from an output to a site.
        CaptureError: the float model cannot be captured.
        CalibrationError: there is no batch, or one does not fit the model.
    """
    settings = given_options(_Settings, options, "sensitivity")
    require_float_cache(result.quantized, asked="sensitivity")
    _, reference = float_graph(result.backend, model, inputs, asked="sensitivity")
    return _measure(reference, result.quantized, result.backend, batches, settings)


def _measure(
    reference: GraphModule,
    quantized: GraphModule,
    backend: Backend,
    batches: Iterable[Any],
    settings: _Settings,
) -> Sensitivity:
    paired = PairedGraphs(reference, quantized)
    metric, most, input_fn = settings.metric, settings.evaluate, settings.input_fn
    if most and metric is None:
        batches = list(batches)  # it is read twice
    found = estimate_sensitivity(
        paired,
        batches,
        work=work_of(quantized, backend.recipe),
        draws=settings.draws,
        seed=settings.seed,
        whole=settings.whole,
        input_fn=input_fn,
        progress=settings.progress,
    )
    if not most:
        return found
    if metric is not None:
        return evaluate_sites(found, paired, metric, getattr(metric, "__name__", "metric"), most)
    calls = list(calls_of(quantized, batches, "sensitivity", input_fn=input_fn, progress=False))
    return evaluate_sites(found, paired, OutputSQNR(paired, calls), "SQNR of the outputs, dB", most)
