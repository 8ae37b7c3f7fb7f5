"""Results of many recipes of one model, which is captured once; statistics stand for the data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch.fx import GraphModule

from quantfx.accuracy.backend_options import with_options
from quantfx.accuracy.candidate import Candidate
from quantfx.accuracy.cost import CostModel, PricedSite, with_times
from quantfx.accuracy.greedy_order import greedy_order
from quantfx.accuracy.metric import Called
from quantfx.accuracy.space import Space
from quantfx.accuracy.tuned_times import tuned_times
from quantfx.backends.backend import Backend
from quantfx.backends.checks.targets import host
from quantfx.make_result import make_result
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model
from quantfx.passes.observe.statistics.fill_observers import fill_observers
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.report.sensitivity.estimate import estimate_sensitivity
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
from quantfx.passes.report.sensitivity.sensitivity import Sensitivity
from quantfx.passes.report.work import work_of
from quantfx.patterns.errors import QuantfxError, QuantfxWarning
from quantfx.result import Result

_WITH_VNNI, _WITHOUT_VNNI = 4.0, 2.0
# The number of results kept: judging an answer, and the answer itself, ask for them again.
_KEPT = 2


class _Made(NamedTuple):
    """A result, and the prepared graph that it was converted from."""

    prepared: GraphModule
    result: Result


class CandidateResults:
    """Makes results of recipes.

    Args:
        graph: The captured model.
        backend: The backend that the recipes change.
        statistics: Statistics of the calibration data.
        inputs: The inputs that the model was captured with.
        model: The float model, for ``Result.compare``.
    """

    def __init__(
        self,
        graph: GraphModule,
        backend: Backend,
        statistics: Statistics,
        inputs: ExampleInputs,
        model: Model,
    ) -> None:
        self._graph, self.backend, self._statistics = graph, backend, statistics
        self._inputs, self._model = inputs, model
        self._kept: dict[Candidate, _Made] = {}

    def backend_of(self, candidate: Candidate) -> Backend:
        """Return the backend with the options and the config of a recipe."""
        chosen = with_options(self.backend, dict(candidate.options))
        return chosen.with_config(candidate.config(self.backend.recipe.config))

    def result(self, candidate: Candidate) -> Result:
        """Return the result of a recipe.

        Raises:
            QuantfxError: the recipe cannot be made, or misses kernels.
        """
        return self._make(candidate).result

    def callable(self, candidate: Candidate) -> Called:
        """Return a recipe's lowered model, or its q/dq graph if the kernels do not run here."""
        result = self.result(candidate)
        runs = result.backend.kernels and not result.backend.not_here
        return result.module if runs else result.quantized

    def costs(self, plain: Candidate) -> CostModel:
        """Return the cost model of this model's recipes.

        Args:
            plain: The recipe with every site int8.
        """
        result = self.result(plain)
        planned = {str(each.site): each for each in result.report.sites}
        work = work_of(result.quantized, result.backend.recipe)
        sites = [
            PricedSite(name, known.kind, known.mode, each.macs or 0, each.weight_bytes)
            for each in work
            if (known := planned.get(name := str(each.site))) is not None
        ]
        others = [each for each in work if str(each.site) not in planned]
        runs = result.backend.kernels and not result.backend.not_here
        macs = {site.name: site.macs for site in sites}
        times = tuned_times(result.module, macs) if runs else {}
        saturates = (result.backend.target or host()).saturates
        return CostModel(
            with_times(sites, times),
            (sum(each.macs or 0 for each in others), sum(each.weight_bytes for each in others)),
            _WITHOUT_VNNI if saturates else _WITH_VNNI,
        )

    def order(
        self, candidate: Candidate, space: Space, batches: Iterable[Any], seed: int
    ) -> list[str]:
        """Return the sites of a recipe in the order in which to take them back from int8.

        Sites that the estimate does not know come last, the cheapest first. If the model has no
        gradients, these are all sites, and a warning says so.

        Args:
            candidate: The recipe.
            space: Knows the extra cost of each site.
            batches: What to estimate on, in the forms of ``calibrate``.
            seed: Seed of the estimate.
        """
        extra = {site.name: space.extra(site) for site in space.costs.sites}
        try:
            found = self._estimate(candidate, batches, seed)
        except QuantfxError as error:
            if error.rule != "no-gradients":
                raise
            warnings.warn(error.within("the order of sites", QuantfxError).warning(), stacklevel=2)
            known: list[str] = []
        else:
            names = [str(each.site) for each in found.sites]
            order = greedy_order(found, [extra.get(name, 0.0) for name in names])
            known = [name for name in order if name in extra]
        return [*known, *sorted(extra.keys() - known, key=lambda name: (extra[name], name))]

    def _make(self, candidate: Candidate) -> _Made:
        if candidate not in self._kept:
            backend = self.backend_of(candidate)
            prepared = backend.prepare(self._graph)
            fill_observers(prepared, self._statistics)
            quantized = backend.convert(prepared, statistics=self._statistics)
            result = make_result(
                self._graph, quantized, backend, self._inputs, strict=True, model=self._model
            )
            last = [*self._kept.items()][1 - _KEPT :]
            self._kept = dict(last) | {candidate: _Made(prepared, result)}
        return self._kept[candidate]

    def _estimate(self, candidate: Candidate, batches: Iterable[Any], seed: int) -> Sensitivity:
        reference, result = self._make(candidate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantfxWarning)  # warned of rows when calibrating
            return estimate_sensitivity(
                PairedGraphs(reference, result.quantized),
                batches,
                work=work_of(result.quantized, result.backend.recipe),
                seed=seed,
                whole=True,
                progress=False,
            )
