"""Find the decision that spoils a quantized model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.bisection.bisect_result import BisectResult
from quantfx.bisection.find_culprits import find_culprits
from quantfx.bisection.ranges import Ranges
from quantfx.bisection.search import Budget
from quantfx.bisection.trials import Subject, Trials
from quantfx.checks import Check
from quantfx.collect_statistics import collect_graph
from quantfx.make_result import choose_backend, make_result
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observe.calibrate import calibrate
from quantfx.result import Result

# Trials that find what each culprit needs to do harm.
_TRIALS = 64


def bisect(
    model: Model,
    example: Examples = (),
    *,
    check: Check | Callable[[Result], bool],
    batches: Iterable[Any] | None = None,
    backend: str | Backend = "x86",
    config: ConfigLike | None = None,
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    strict: bool = True,
    most: int = 8,
) -> BisectResult:
    """Name the decisions of passes that spoil a result: which pass, which template, which site.

    Each match, float rewrite, shared scale, region and kernel is a decision that can be refused;
    the report marks refused sites as left float by bisect. The search halves the decisions until
    one turns a good result bad, and continues without it while the rest still fails. A trial
    quantizes the captured graph anew; it calibrates only if it observes tensors that no earlier
    trial did. Nothing is random.

    Args:
        model: As for ``quantize``.
        example: As for ``quantize``.
        check: What must hold: one of ``quantfx.checks``, or a function of a `Result`. An exception
            in a pass or in the check is a failure, like False. A check that calls
            ``result.compile()`` also bisects quantfx's passes inside Inductor.
        batches: Calibration data, as for ``quantize``.
        backend: As for ``quantize``.
        config: As for ``quantize``.
        example_kwargs: As for ``quantize``.
        dynamic_shapes: As for ``quantize``.
        strict: As for ``quantize``: a site that misses its kernel is a failure.
        most: Number of culprits to look for. Each takes as many trials as the number of decisions
            has binary digits. At most 64 further trials find what the culprits need to do harm.

    Raises:
        BisectError: the check holds with everything permitted, or fails with nothing permitted.
        CaptureError: as for ``quantize``.
    """
    chosen = choose_backend(backend, config)
    given = given_model(model, example, example_kwargs, dynamic_shapes)
    graph = capture_given(given)
    inputs = ExampleInputs(given.args, given.kwargs, given.dynamic_shapes)
    data = None if batches is None else list(batches)
    subject = make_subject(chosen, graph, inputs, check, strict=strict, data=data)
    ranges = Ranges(None if data is None else partial(calibrate, calibration=data, progress=False))
    trials = Trials(subject, ranges)
    culprits, complete = find_culprits(trials, most=most, budget=Budget(_TRIALS))
    permits = trials.run_without().asked
    return BisectResult(tuple(culprits), complete, permits, trials.verdicts, ranges.calibrations)


def make_subject(
    backend: Backend,
    graph: GraphModule,
    inputs: ExampleInputs,
    check: Check | Callable[[Result], bool],
    *,
    strict: bool,
    data: Sequence[Any] | None,
) -> Subject:
    """Return the subject of trials: how ``graph`` becomes a result, and the check of it.

    Args:
        backend: The backend that quantizes.
        graph: A captured graph.
        inputs: The inputs that it was captured with.
        check: The check that the user gave.
        strict: As for ``quantize``.
        data: Calibration data, for passes that need statistics; None if there is none.
    """

    def result(quantized: GraphModule) -> Result:
        return make_result(graph, quantized, backend, inputs, strict=strict)

    def holds(made: Result) -> bool:
        if not isinstance(check, Check):
            return check(made)
        with preserved_state(graph):
            return check.holds(made, graph, *inputs.args, **inputs.kwargs)

    seen = None
    if data is not None and backend.needs_statistics:
        seen = collect_graph(graph, backend, data, progress=False)
    return Subject(backend, graph, result, holds, strict, seen)
