"""Find the recipe that meets a metric at least cost: ``quantfx.quantize_to``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any, TypedDict, Unpack

from rich.console import Console
from torch import nn
from torch.fx import GraphModule

from quantfx.accuracy.backend_options import offered
from quantfx.accuracy.candidate import Candidate
from quantfx.accuracy.digests import items_digest, metric_digest
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
from quantfx.given_options import given_options
from quantfx.make_result import choose_backend
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.errors import ArgumentError, CalibrationError
from quantfx.passes.inputs.batch_check import BatchCheck
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.inputs.leaves import Inputs
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observers.statistics.digests import joined
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.quant.spec import ObserverName
from quantfx.tuned_result import Tuned

# Rows and items for the order of sites, which more data hardly changes.
_ESTIMATED_ROWS = 64
_FEWEST_ITEMS, _MOST_ITEMS = 4, 16
_SEEDS = 2**63  # seeds that torch takes


class SearchOptions(TypedDict, total=False):
    """How to search.

    Attributes:
        backend: As for ``quantize``.
        time_limit: Seconds after which the best recipe so far is returned, by default 600. The
            first recipe is always scored and the answer always judged.
        seed: Seed of the split and of the estimate; equal seeds find equal recipes unless time runs
            out.
        resume: A JSON file of trials, which is written, and read if it exists. A file of another
            model, data, backend, seed or metric is refused; a metric function must have the same
            code and closure, see ``quantfx/accuracy/digests.py``.
        group: A process group of torch.distributed whose processes share the trials. All give the
            same arguments.
        input_fn: Turns an item into a batch, as for ``calibrate``.
        example_kwargs: As for ``quantize``.
        dynamic_shapes: As for ``quantize``; needed by a metric that joins items to larger batches.
        progress: Report each trial if there is a terminal.
    """

    backend: str | Backend
    time_limit: float
    seed: int
    resume: str | Path | None
    group: Any
    input_fn: Callable[[Any], Any] | None
    example_kwargs: dict[str, Any] | None
    dynamic_shapes: Any
    progress: bool


def quantize_to(
    model: Model,
    example: Examples,
    batches: Iterable[Any],
    *,
    metric: Metric | NamedMetric,
    at_least: float | None = None,
    at_most_slower: float | None = None,
    size: int | None = None,
    **options: Unpack[SearchOptions],
) -> Tuned:
    """Quantize ``model`` at least cost for a required metric, or as well as a budget allows.

    ``batches`` are split at random: half calibrate, a quarter chooses between recipes and a quarter
    judges the choice. So give many small items, and join items that resemble each other (crops of
    one photograph). The search tries whole recipes first (smoothing, repairs, observers). Then it
    leaves sites in float or half precision where this gains most for its cost (see `Search`). The
    metric is evaluated on ``Result.module``, which is what runs.

    Args:
        model: As for ``quantize``.
        example: As for ``quantize``.
        batches: Items that ``metric`` takes, and that ``input_fn`` turns into batches.
        metric: A function of a callable model and a list of items that returns how good the model
            is, higher is better; or ``"sqnr"`` (dB) or ``"agreement"`` (share of rows with the same
            largest output) against the float model. It is called once per recipe, and eight more
            times for the first recipe and for the answer, to find the standard error.
        at_least: Lower bound of the metric, with a margin of one standard error on the items that
            choose.
        at_most_slower: Allowed extra cost compared with every site int8, 0.1 for 10 %.
        size: Upper bound of the bytes of all weights.
        options: See `SearchOptions`.

    Raises:
        ArgumentError: there is no goal, a goal is out of range, or an option does not exist.
        QuantfxError: the metric fails for the float model, or no recipe can be scored.
        FileError: ``resume`` is of another model, data, metric or seed.
        CaptureError: as for ``quantize``.
        ContractError: as for ``quantize``.
        CalibrationError: as for ``quantize``, of ``batches``.
    """
    start = time.monotonic()
    settings = given_options(_Settings, options, "quantize_to")
    goal, ranks = Goal(at_least, at_most_slower, size), Ranks(settings.group)
    job = ranks.together(lambda: _Job.of(model, example, list(batches), settings, start))
    meter = ranks.together(lambda: job.meter(metric))
    space = job.space(ranks)
    trials = job.trials(ranks, space, meter, metric)
    trials.score_float(job.module)
    return job.tuned(goal, space, meter, trials, Search(goal, trials, space).run())


@dataclass(frozen=True)
class _Settings:
    """The options with their defaults."""

    backend: str | Backend = "x86"
    time_limit: float = 600.0
    seed: int = 0
    resume: str | Path | None = None
    group: Any = None
    input_fn: Callable[[Any], Any] | None = None
    example_kwargs: dict[str, Any] | None = None
    dynamic_shapes: Any = None
    progress: bool = True

    def __post_init__(self) -> None:
        seconds = self.time_limit if isinstance(self.time_limit, Real) else math.nan
        is_seed = isinstance(self.seed, int) and abs(self.seed) < _SEEDS
        for name, fits in (("time_limit", seconds >= 0), ("seed", is_seed)):
            if not fits:
                message = f"{name}={getattr(self, name)!r} is out of range"
                fix = "give seconds, from 0 on" if name == "time_limit" else "give an integer"
                raise ArgumentError(message, rule="number-range", site=name, fix=fix)


@dataclass(frozen=True)
class _Job:
    """A captured model with its data."""

    settings: _Settings
    start: float
    items: list[Any]
    batch: Callable[[int], Any]  # batches of each item by number, made once
    split: Split
    module: nn.Module
    graph: GraphModule
    statistics: Statistics
    results: CandidateResults

    @classmethod
    def of(
        cls, model: Model, example: Examples, items: list[Any], settings: _Settings, start: float
    ) -> _Job:
        """Capture the model, and collect statistics of the items that calibrate."""
        if not items:
            message = "there is nothing to quantize with: the iterable gave 0 batches"
            raise CalibrationError(message, rule="no-batches", site="batches")
        given = given_model(model, example, settings.example_kwargs, settings.dynamic_shapes)
        graph = capture_given(given, check_inputs=True, compare=True)
        backend = choose_backend(settings.backend, None)
        split = split_items(len(items), settings.seed)
        turned = settings.input_fn

        @cache
        def batch(number: int) -> Any:
            return items[number] if turned is None else turned(items[number])

        def fit() -> Iterator[Any]:
            check = BatchCheck(graph)
            for number in split.fit:
                list(check.inputs_of(batch(number), number))  # errors name the number of the item
                yield batch(number)

        statistics = collect_graph(graph, backend, fit(), progress=settings.progress)
        inputs = ExampleInputs(given.args, given.kwargs, given.dynamic_shapes)
        results = CandidateResults(graph, backend, statistics, inputs, model)
        return cls(settings, start, items, batch, split, given.module, graph, statistics, results)

    @property
    def until(self) -> float:
        """The time when to stop."""
        return self.start + self.settings.time_limit

    def space(self, ranks: Ranks) -> Space:
        """Return the recipes that the search may try."""
        # Machines may differ in measurements and abilities, but all must choose alike.
        costs = ranks.all_do(lambda: self.results.costs(Candidate()))[0]
        backend = self.results.backend
        known: dict[Candidate, list[str]] = {}

        def order(candidate: Candidate) -> list[str]:
            if candidate not in known:
                batches, seed = self._of_estimate(), self.settings.seed
                known[candidate] = self.results.order(candidate, space, batches, seed)
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

    def _of_estimate(self) -> Iterator[Any]:
        """Yield batches to estimate on: one, then more for half of the remaining time."""
        enough = (time.monotonic() + self.until) / 2
        items = _ESTIMATED_ROWS * self.statistics.batches // max(self.statistics.rows, 1)
        most = min(max(items, _FEWEST_ITEMS), _MOST_ITEMS)
        for count, number in enumerate(self.split.fit[:most]):
            if count and time.monotonic() > enough:
                return
            yield self.batch(number)

    def meter(self, metric: Metric | NamedMetric) -> Meter:
        """Return the meter of the metric."""

        def calls() -> dict[int, list[Inputs]]:
            check = BatchCheck(self.graph)
            used = sorted({*self.split.choose, *self.split.judge})
            return {each: list(check.inputs_of(self.batch(each), each)) for each in used}

        return meter_of(metric, self.items, self.module, calls)

    def book(self, metric: Metric | NamedMetric) -> TrialBook:
        """Return earlier trials of the same search."""
        if self.settings.resume is None:
            return TrialBook(None, {})
        every = range(len(self.items))
        facts = {
            "model": self.statistics.model_digest,
            "data": items_digest(zip(self.items, map(self.batch, every), strict=True)),
            "metric": metric_digest(metric),
            "split": str(self.settings.seed),
            "backend": _identity(self.results.backend),
        }
        return TrialBook(Path(self.settings.resume), facts)

    def trials(
        self, ranks: Ranks, space: Space, meter: Meter, metric: Metric | NamedMetric
    ) -> Trials:
        """Return the trials of recipes."""
        settings, console = self.settings, Console(stderr=True)
        shown = settings.progress and console.is_terminal and ranks.is_first
        return Trials(
            self.results.callable,
            lambda each: space.costs.price(dict(each.modes)),
            meter,
            self.split,
            book=ranks.all_do(lambda: self.book(metric))[0],
            ranks=ranks,
            until=self.until,
            console=console if shown else None,
        )

    def tuned(self, goal: Goal, space: Space, meter: Meter, trials: Trials, found: Found) -> Tuned:
        """Return the answer with its evidence."""
        candidate = found.answer.candidate
        return Tuned(
            self.results.result(candidate),
            met=found.met,
            why_not=found.why_not,
            config=self.results.backend_of(candidate).recipe.config,
            backend=dict(candidate.options),
            statistics=self.statistics,
            goal=goal,
            candidate=candidate,
            front=tuple((t.price.cost, t.score.value, t.candidate.text) for t in trials.front()),
            trials=tuple(trials.done),
            evidence=_evidence(goal, self.split, len(self.items), meter, trials, found),
            costs=space.costs.source,
            float_share=found.answer.price.float_share,
            seconds=time.monotonic() - self.start,
        )


def _identity(backend: Backend) -> str:
    """Return a text that differs between backends with different results."""
    pipelines = (backend.prepare_pipeline, backend.convert_pipeline, backend.lower_pipeline)
    parts = [
        backend.recipe.digest,
        backend.target_name,
        *(each.fingerprint() for each in pipelines),
    ]
    return f"{backend.name} {joined([*parts, *(type(each).__name__ for each in backend.kernels)])}"


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
