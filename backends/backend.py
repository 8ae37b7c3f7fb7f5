"""What a backend is: a name, bound patterns and specs, and the pipelines that use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch.fx import GraphModule

from quantfx.backends.targets import Target
from quantfx.passes.base import Context
from quantfx.passes.check_config import CheckConfig
from quantfx.passes.config import Config, Given
from quantfx.passes.contract import require_converted, require_planned
from quantfx.passes.errors import PipelineError
from quantfx.passes.insert_qdq import InsertQDQ
from quantfx.passes.instruments import Instrument
from quantfx.passes.pass_record import facts_of
from quantfx.passes.pipeline import Pipeline
from quantfx.passes.recipe import Recipe
from quantfx.passes.spec import Concrete


@dataclass(frozen=True)
class Backend:
    """An immutable value; every change returns another backend.

    Attributes:
        name: E.g. ``x86``.
        recipe: Patterns and the specs bound to them.
        prepare_pipeline: From a captured graph to one with observers.
        convert_pipeline: From a calibrated graph to the q/dq graph.
        target: The instruction set the specs are made for; None is machine-independent.
        policy: How the specs keep integer sums from saturating there, for the report.
        runs_on_cpu: Whether ``Result.compile`` may compile its graphs for this machine.
    """

    name: str
    recipe: Recipe
    prepare_pipeline: Pipeline
    convert_pipeline: Pipeline
    target: Target | None = None
    policy: str = "full-range int8"
    runs_on_cpu: bool = True

    def prepare(
        self,
        graph: GraphModule,
        *,
        strict: bool = True,
        instruments: Sequence[Instrument] = (),
    ) -> GraphModule:
        """Return a copy of ``graph`` with observers: float in, float out, ready to calibrate.

        Args:
            graph: From ``capture``; not changed.
            strict: Refuse a graph in which no template matches, and a config of which a rule
                selects nothing.
            instruments: Called around each pass.

        Raises:
            ConfigError: a rule selects nothing, or asks for what the backend cannot do.
            ContractError: nothing is to be quantized, with the near misses.
        """
        already = facts_of(graph) & {"observed", "qdq"} if isinstance(graph, GraphModule) else ()
        if already:
            raise PipelineError(
                "the graph is prepared or quantized already: prepare a captured one"
            )
        pipeline = self.prepare_pipeline
        if not strict and CheckConfig() in pipeline.passes:
            pipeline = pipeline.replace("check-config", CheckConfig(unmatched="warning"))
        prepared = pipeline.run(graph, self.context, instruments=instruments)
        if strict:
            require_planned(prepared, self.recipe)
        return prepared

    def convert(
        self,
        prepared: GraphModule,
        *,
        strict: bool = True,
        instruments: Sequence[Instrument] = (),
    ) -> GraphModule:
        """Return the q/dq graph of a calibrated module: int8 weights, float arithmetic.

        Args:
            prepared: From ``prepare``, after calibration; not changed.
            strict: Check that every planned site was converted; else sites that calibration
                never reached are left float.
            instruments: Called around each pass.

        Raises:
            CalibrationError: a site was never calibrated.
            ContractError: a planned site was not converted.
        """
        pipeline = self.convert_pipeline
        if not strict and InsertQDQ() in pipeline.passes:
            pipeline = pipeline.replace("insert-qdq", InsertQDQ(uncalibrated="float"))
        quantized = pipeline.run(prepared, self.context, instruments=instruments)
        if strict:
            require_converted(quantized)
        return quantized

    @property
    def context(self) -> Context:
        """What the passes of this backend are given."""
        return Context(self.recipe)

    def renamed(self, name: str) -> Backend:
        """Return the backend under another name."""
        return replace(self, name=name, recipe=replace(self.recipe, name=name))

    def with_config(self, config: Given) -> Backend:
        """Return the backend with another config.

        Args:
            config: A `Config`, the name of a mode for the whole model, the path of a ``.toml`` or
                ``.json`` file, or what such a file holds.

        Raises:
            ConfigError: it is ill-formed; names the place and the nearest valid name.
        """
        return replace(self, recipe=replace(self.recipe, config=Config.of(config)))

    def with_specs(self, **specs: Concrete) -> Backend:
        """Return the backend with other specs under the given spec names.

        Raises:
            SpecError: the recipe has no spec of that name; names the nearest.
        """
        for name in specs:
            self.recipe.spec(name)
        bound = tuple((name, specs.get(name, spec)) for name, spec in self.recipe.specs)
        return replace(self, recipe=replace(self.recipe, specs=bound))

    def without_templates(self, *names: str) -> Backend:
        """Return the backend less the named templates."""
        patterns = self.recipe.patterns.without(*names)
        return replace(self, recipe=replace(self.recipe, patterns=patterns))
