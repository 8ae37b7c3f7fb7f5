"""Find the recipe that meets a metric at least cost: ``quantfx.quantize_to``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch.fx import GraphModule

from quantfx.accuracy.backend_options import offered
from quantfx.accuracy.candidate import Candidate
from quantfx.accuracy.evidence import Evidence, thin_evidence
from quantfx.accuracy.goal import Goal
from quantfx.accuracy.metric import Meter, Metric, NamedMetric, meter_of
from quantfx.accuracy.ranks import Ranks
from quantfx.accuracy.search import Found, Search
from quantfx.accuracy.space import LINEAR, Space
from quantfx.accuracy.split import Split, split_items
from quantfx.accuracy.trial_book import TrialBook
from quantfx.accuracy.trials import Trials
from quantfx.backends.backend import Backend
from quantfx.candidate_results import CandidateResults
from quantfx.collect_statistics import collect_graph
from quantfx.make_result import choose_backend
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.errors import CalibrationError
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.inputs.leaves import Inputs, leaves_with_paths
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observers.statistics.digests import call_digest, joined
from quantfx.passes.quant.spec import ObserverName
from quantfx.passes.report.sensitivity.estimate import calls_of
from quantfx.tuned_result import Tuned

_PLAIN = (int, float, str, bool, type(None))


def quantize_to(
    model: Model,
    example: Examples,
    batches: Iterable[Any],
    *,
    metric: Metric | NamedMetric,
    at_least: float | None = None,
    at_most_slower: float | None = None,
    size: int | None = None,
    backend: str | Backend = "x86",
    time_limit: float = 600.0,
    seed: int = 0,
    resume: str | Path | None = None,
    group: Any = None,
    input_fn: Callable[[Any], Any] | None = None,
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    progress: bool = True,
) -> Tuned:
    """Quantize ``model`` so that a metric holds, at least cost; or as well as a budget allows.

    ``batches`` are split at random: half calibrate, a quarter chooses between recipes and a quarter
    judges the choice, so give many small ones. Whole recipes come first (smoothing, repairs,
    observers), then sites are left in float or in half precision where that wins most for its cost
    (see `Search`). What is evaluated is what runs: ``Result.module``.

    Args:
        model: As for ``quantize``.
        example: As for ``quantize``.
        batches: Items, as many as there are: what ``metric`` takes, and ``input_fn`` makes batches
            of.
        metric: A function of a callable model and a list of items that returns how good it is,
            higher is better; or ``"sqnr"`` (dB) or ``"agreement"`` (share of rows with the same
            largest output) against the float model. It is called once a recipe, and eight times
            more for the first recipe and for the answer, to find the standard error.
        at_least: What the metric has to be. A recipe holds if the items that choose say so with a
            margin of one standard error.
        at_most_slower: By how much the cost may exceed that of every site int8, 0.1 for 10 %.
        size: How many bytes the weights may have.
        backend: As for ``quantize``.
        time_limit: Seconds, after which the best so far is returned; the first recipe is scored
            and the answer judged in any case.
        seed: Of the split and of the estimate; equal seeds find equal recipes if time is no limit.
        resume: A file in JSON of what was tried, which is written, and read if it is there.
        group: Processes of torch.distributed that try recipes in turns. All give the same
            arguments.
        input_fn: Turns an item into a batch, as for ``calibrate``.
        example_kwargs: As for ``quantize``.
        dynamic_shapes: As for ``quantize``; needed for a metric that joins items to larger batches.
        progress: Tell of each trial where there is a terminal.

    Raises:
        ArgumentError: no goal was given, or one out of range.
        QuantfxError: the metric fails for the float model, or no recipe can be scored.
        FileError: ``resume`` is of another model, data, metric or seed.
        CaptureError: as for ``quantize``.
        ContractError: as for ``quantize``.
        CalibrationError: as for ``quantize``, of ``batches``.
    """
    start = time.monotonic()
    goal = Goal(at_least, at_most_slower, size)
    items = list(batches)
    if not items:
        message = "there is nothing to quantize with: the iterable gave 0 batches"
        raise CalibrationError(message, rule="no-batches", site="batches")
    given = given_model(model, example, example_kwargs, dynamic_shapes)
    graph = capture_given(given, check_inputs=True, compare=True)
    chosen = choose_backend(backend, None)
    split = split_items(len(items), seed)

    def inputs_of(item: Any) -> Any:
        return item if input_fn is None else input_fn(item)

    fit = [inputs_of(items[each]) for each in split.fit]
    statistics = collect_graph(graph, chosen, fit, progress=progress)
    inputs = ExampleInputs(given.args, given.kwargs, given.dynamic_shapes)
    results = CandidateResults(graph, chosen, statistics, inputs, model)
    meter = meter_of(metric, items, given.module, lambda: _calls(graph, items, input_fn))
    facts = {
        "model": statistics.model_digest,
        "data": _digest(items, inputs_of),
        "metric": meter.name,
        "split": str(seed),
        "backend": f"{chosen.name} {chosen.recipe.digest}",
    }
    ranks = Ranks(group)
    space = _space(results, fit, seed)
    console = Console(stderr=True)
    trials = Trials(
        results.callable,
        lambda each: space.costs.price(dict(each.modes)),
        meter,
        split,
        book=TrialBook(None if resume is None else Path(resume), facts),
        ranks=ranks,
        until=start + time_limit,
        console=console if progress and console.is_terminal and ranks.is_first else None,
    )
    trials.score_float(given.module)
    found = Search(goal, trials, space).run()
    evidence = _evidence(goal, split, len(items), meter, trials, found)
    candidate = found.answer.candidate
    return Tuned(
        results.result(candidate),
        met=found.met,
        why_not=found.why_not,
        config=results.backend_of(candidate).recipe.config,
        backend=dict(candidate.options),
        statistics=statistics,
        goal=goal,
        candidate=candidate,
        front=tuple((t.price.cost, t.score.value, t.candidate.text) for t in trials.front()),
        trials=tuple(trials.done),
        evidence=evidence,
        costs=space.costs.source,
        float_share=found.answer.price.float_share,
        seconds=time.monotonic() - start,
    )


def _space(results: CandidateResults, fit: Sequence[Any], seed: int) -> Space:
    """Return the recipes that there are for a model."""
    costs = results.costs(Candidate())
    backend = results.backend
    known: dict[Candidate, list[str]] = {}

    def order(candidate: Candidate) -> list[str]:
        if candidate not in known:
            known[candidate] = results.order(candidate, space, fit, seed)
        return known[candidate]

    linears = any(site.op == LINEAR for site in costs.sites)
    other: ObserverName = "histogram"
    used = {getattr(spec, "observer", None) for _, spec in backend.recipe.specs}
    space = Space(
        costs,
        frozenset(backend.recipe.patterns.modes),
        offered(backend, linears=linears),
        () if other in used else (other,),
        order,
    )
    return space


def _calls(
    graph: GraphModule, items: Sequence[Any], input_fn: Callable[[Any], Any] | None
) -> list[list[Inputs]]:
    return [list(calls_of(graph, [item], input_fn, progress=False)) for item in items]


def _digest(items: Sequence[Any], inputs_of: Callable[[Any], Any]) -> str:
    """Return a hash of the items, labels included, as far as they are tensors and numbers."""
    return joined(
        call_digest(
            (path, leaf if hasattr(leaf, "dtype") or isinstance(leaf, _PLAIN) else type(leaf))
            for path, leaf in [*leaves_with_paths(item), *leaves_with_paths(inputs_of(item))]
        )
        for item in items
    )


def _evidence(
    goal: Goal, split: Split, items: int, meter: Meter, trials: Trials, found: Found
) -> Evidence:
    exact, chosen = trials.exact, found.answer.score
    return Evidence(
        meter.name,
        items,
        len(split.fit),
        len(split.choose),
        len(split.judge),
        exact,
        chosen,
        found.judged[-1].score,
        tuple(f"{each.candidate.short}: {each.score.value:.4g}" for each in found.judged[:-1]),
        meter.calls,
        meter.seconds,
        tuple(thin_evidence(goal, split, items, exact, chosen)),
    )
