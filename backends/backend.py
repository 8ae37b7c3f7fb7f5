"""The type of backends: a name, bound patterns and specs, and the pipelines that use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal, overload

from torch.fx import GraphModule

from quantfx.backends.checks.device_guard import refuse_on_cpu
from quantfx.backends.checks.lowering import Lowering
from quantfx.backends.checks.range_check import saturating_sites
from quantfx.backends.checks.require_float_graph import require_float_graph, require_float_tensors
from quantfx.backends.checks.targets import Target, host
from quantfx.backends.direct.family import Direct
from quantfx.backends.direct.form_regions import FormRegions
from quantfx.backends.inductor.fuse_sums import FuseSums
from quantfx.backends.inductor.plain_inductor import warn_of_plain_inductor
from quantfx.backends.out_of_reach import OutOfReach
from quantfx.backends.qat import (
    Qat,
    as_trainable,
    fake_quantizing,
    require_evaluates,
    require_qat,
    require_trains,
)
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.config.config import Config, ConfigLike
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.convert.insert_qdq import InsertQDQ
from quantfx.passes.convert.repair.data_for import (
    ask_for_sample,
    needing_statistics,
    refuse_statistics,
    sample_for,
)
from quantfx.passes.convert.scale_remarks import warn_of_scales
from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.clone import clone
from quantfx.passes.graph.facts import TRAINABLE, facts_of
from quantfx.passes.lower.lower import Lower
from quantfx.passes.lower.merge_equal import MergeEqual
from quantfx.passes.observers.statistics.sample import drop_sample
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.instruments import Instrument
from quantfx.passes.pipeline.kernel_family import KernelFamily
from quantfx.passes.pipeline.pipeline import Pipeline, require_graph
from quantfx.passes.quant.spec import Concrete
from quantfx.passes.report.compare_sites import SiteComparison, compare_sites
from quantfx.passes.report.contract import require_converted, require_planned
from quantfx.passes.report.outcome import SiteOutcome, lowered_outcomes
from quantfx.passes.report.report import Report, make_report
from quantfx.passes.train.qat_module import QatModule
from quantfx.patterns.errors import QuantfxError

_NO_PASSES = Pipeline(())


@dataclass(frozen=True)
class Backend:
    """A backend, as an immutable value; every change returns a new backend.

    Attributes:
        name: Name, e.g. ``x86``.
        recipe: Patterns and the specs bound to them.
        prepare_pipeline: From a captured graph to a graph with observers.
        convert_pipeline: From a calibrated graph to the q/dq graph.
        lower_pipeline: From the q/dq graph to kernel calls.
        kernels: Kernel families, in the order in which ``lower`` asks them.
        target: The instruction set that the specs are made for; None is machine-independent.
        policy: How the specs keep integer sums from saturating on the target, for the report.
        unverified: What could not be tested, for the report: ``no XPU``.
        eager: Why a compiler cannot take its lowered graphs; empty if it can.
        qat: Patterns and passes for quantization-aware training; None if it does not train.
    """

    name: str
    recipe: Recipe
    _: KW_ONLY
    prepare_pipeline: Pipeline
    convert_pipeline: Pipeline
    lower_pipeline: Pipeline = _NO_PASSES
    kernels: tuple[KernelFamily, ...] = ()
    target: Target | None = None
    policy: str = "full-range int8"
    unverified: str = ""
    eager: str = ""
    qat: Qat | None = None

    @property
    def target_name(self) -> str:
        """Name of the instruction set, or ``any``."""
        return self.target.name if self.target else "any"

    def make_report(
        self,
        graph: GraphModule,
        quantized: GraphModule,
        sites: tuple[SiteOutcome, ...] | None = None,
    ) -> Report:
        """Return the report of a conversion.

        Args:
            graph: The captured graph.
            quantized: The q/dq graph made from it.
            sites: The outcome of every planned site; by default as before lowering.
        """
        return make_report(
            graph,
            quantized,
            self.recipe,
            target=self.target_name,
            policy=self.policy,
            sites=sites,
            unverified=self.unverified,
        )

    @overload
    def prepare(
        self,
        graph: GraphModule,
        *,
        qat: Literal[False] = False,
        strict: bool = True,
        instruments: Sequence[Instrument] = (),
    ) -> GraphModule: ...

    @overload
    def prepare(
        self,
        graph: GraphModule,
        *,
        qat: Literal[True],
        learn_scales: bool = False,
        strict: bool = True,
        instruments: Sequence[Instrument] = (),
    ) -> QatModule: ...

    def prepare(
        self,
        graph: GraphModule,
        *,
        qat: bool = False,
        learn_scales: bool = False,
        strict: bool = True,
        instruments: Sequence[Instrument] = (),
    ) -> GraphModule:
        """Return a copy of ``graph`` with observers, ready to calibrate; it computes in float.

        Args:
            graph: From ``capture``, with ``training=True`` for ``qat``; not changed.
            qat: Insert fake-quantizes, for training. The result is in training mode and shares no
                tensor with ``graph``.
            learn_scales: Train the scales with the weights instead of deriving them from ranges.
            strict: Refuse a graph in which no template matches, and a config with a rule that
                selects nothing.
            instruments: Called around each pass.

        Raises:
            ConfigError: a rule selects nothing, or asks for what the backend cannot do.
            ContractError: there is nothing to quantize; names the near misses.
            PipelineError: the graph was captured in the other mode, or the backend does not train.
        """
        if isinstance(graph, GraphModule):
            require_float_graph(graph)
        pipeline = self.prepare_pipeline
        if not strict and CheckConfig() in pipeline.passes:
            pipeline = pipeline.replace("check-config", CheckConfig(unmatched="warning"))
        context = self.context
        if qat:
            training = require_qat(self.qat, self.name)
            refuse_statistics(self.convert_pipeline, "training")
            require_trains(pipeline, graph)
            context = replace(context, recipe=training.recipe(self.recipe))
            pipeline = fake_quantizing(pipeline, learn_scales)
            graph = clone(graph, "all")
        else:
            require_evaluates(graph, learn_scales)
        prepared = pipeline.run(graph, context, instruments=instruments)
        if not qat:
            ask_for_sample(prepared, self.convert_pipeline)
        if strict:
            require_planned(prepared, self.recipe)
            require_float_tensors(prepared)
        return as_trainable(prepared) if qat else prepared

    def convert(
        self,
        prepared: GraphModule,
        *,
        strict: bool = True,
        statistics: Statistics | None = None,
        instruments: Sequence[Instrument] = (),
    ) -> GraphModule:
        """Return the q/dq graph of a calibrated module: int8 weights, float arithmetic.

        Args:
            prepared: From ``prepare``, after calibration; not changed.
            strict: Check that every planned site was converted; else leave sites float that
                calibration never reached.
            statistics: Statistics of calibration data, for passes that need them.
            instruments: Called around each pass.

        Raises:
            CalibrationError: a site was never calibrated.
            ContractError: a planned site was not converted.
        """
        require_graph(prepared)
        pipeline = self.convert_pipeline
        if not strict and InsertQDQ() in pipeline.passes:
            pipeline = pipeline.replace("insert-qdq", InsertQDQ(uncalibrated="float"))
        if TRAINABLE in facts_of(prepared):
            finish, prepared = self._finishing(prepared)
            pipeline = finish + pipeline
        sample = sample_for(pipeline, prepared, statistics)
        context = replace(self.context, statistics=statistics, sample=sample)
        quantized = pipeline.run(prepared, context, instruments=instruments)
        drop_sample(quantized)
        if strict:
            require_converted(quantized)
        warn_of_scales(quantized)
        warn_of_plain_inductor(quantized)
        return quantized

    def finish(self, trained: QatModule) -> GraphModule:
        """Return the float graph of a trained module, with its observers, as ``convert`` takes it.

        Args:
            trained: From ``prepare`` with ``qat=True``; not changed.

        Raises:
            PipelineError: the backend does not train.
        """
        finish, copy = self._finishing(trained)
        return finish.run(copy, self.context)

    def _finishing(self, trained: GraphModule) -> tuple[Pipeline, GraphModule]:
        """Return the pipeline that ends a module's training, and a copy of the module for it."""
        finish = require_qat(self.qat, self.name).finish
        return finish, clone(trained, "all", gradients=False)

    def lower(
        self,
        quantized: GraphModule,
        *,
        strict: bool = True,
        instruments: Sequence[Instrument] = (),
    ) -> GraphModule:
        """Return the q/dq graph with its quantized subgraphs replaced by kernel calls.

        It runs without a compiler, with residual sums as separate operators. ``Result.compile``
        compiles it.

        Args:
            quantized: From ``convert``; not changed.
            strict: Refuse a graph in which a planned site misses its kernel or would compute
                wrongly on this CPU; else warn.
            instruments: Called around each pass.

        Raises:
            ContractError: ``strict`` refuses a site.
            PipelineError: the backend has no kernels, or the graph is not a q/dq graph.
        """
        lowering = self.lowering(quantized, instruments=instruments)
        lowering.require(strict=strict)
        return lowering.module

    def lowering(
        self,
        quantized: GraphModule,
        *,
        float_dtype: str = "",
        plans: bool = True,
        instruments: Sequence[Instrument] = (),
    ) -> Lowering:
        """Return the lowered graph with the outcome of every site, unchecked.

        Args:
            quantized: From ``convert``; not changed.
            float_dtype: ``"bfloat16"`` makes kernels return float results in bfloat16.
            plans: Whether kernels may be called that need Python, such as prepared plans.
            instruments: Called around each pass.

        Raises:
            PipelineError: the backend has no kernels, or the graph is not a q/dq graph.
        """
        if not self.kernels:
            message = f"backend '{self.name}' has no kernels to lower to"
            raise PipelineError(message, rule="no-kernels", site=self.name)
        if not plans:
            others = tuple(each for each in self.kernels if not each.needs_process)
            left_out = tuple(each for each in self.kernels if each.needs_process)
            return replace(self, kernels=(*others, OutOfReach(left_out))).lowering(
                quantized, float_dtype=float_dtype, instruments=instruments
            )
        pipeline = self.lower_pipeline
        if float_dtype:
            pipeline = _without_regions(pipeline).replace(Lower.name, Lower(float_dtype))
        module = pipeline.run(quantized, self.context, instruments=instruments)
        not_here = self.not_here
        if not_here:
            refuse_on_cpu(module, not_here)
        saturation = {each.saturates for each in self.kernels} if host().saturates else set()
        saturates = bool(saturation - {"none"})
        return Lowering(
            module,
            lowered_outcomes(quantized, module),
            tuple(saturating_sites(quantized, any_two="any" in saturation))
            if saturates and not not_here
            else (),
            not_here,
        )

    def compare_sites(
        self, quantized: GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[SiteComparison, ...]:
        """Run every kernel call, with fused sums, and the float arithmetic that it replaces.

        Args:
            quantized: From ``convert``; not changed.
            args: Positional inputs.
            kwargs: Keyword inputs.

        Raises:
            QuantfxError: the kernels cannot run on this machine.
        """
        not_here = self.not_here
        if not_here:
            raise QuantfxError(not_here, rule="not-here", site=self.name)
        before = Pipeline(_without_regions(self.lower_pipeline).upto(Lower.name).passes[:-1])
        reference = before.run(quantized, self.context)
        # Merged equal calls could not be told apart.
        calls = self.lower_pipeline.without(MergeEqual.name) + Pipeline((FuseSums(),))
        lowered = calls.run(quantized, self.context)
        return compare_sites(reference, lowered, args, kwargs)

    @property
    def has_plans(self) -> bool:
        """Whether prepared plans are among the kernels."""
        return any(each.name == Direct.name for each in self.kernels)

    @property
    def needs_statistics(self) -> bool:
        """Whether a pass of the convert pipeline needs statistics."""
        return bool(needing_statistics(self.convert_pipeline))

    @property
    def not_here(self) -> str:
        """Why the kernels cannot run on this machine; empty if they can."""
        return next((each.not_here for each in self.kernels if each.not_here), "")

    @property
    def context(self) -> Context:
        """The context of this backend's passes."""
        return Context(self.recipe, self.kernels)

    def renamed(self, name: str) -> Backend:
        """Return the backend under another name."""
        return replace(self, name=name, recipe=replace(self.recipe, name=name))

    def with_config(self, config: ConfigLike) -> Backend:
        """Return the backend with another config.

        Args:
            config: A `Config`, a mode for the whole model, the path of a ``.toml`` or ``.json``
                file, or the contents of such a file.

        Raises:
            ConfigError: the config is ill-formed; names the place and the nearest valid name.
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
        """Return the backend without the named templates."""
        patterns = self.recipe.patterns.without(*names)
        return replace(self, recipe=replace(self.recipe, patterns=patterns))


def _without_regions(pipeline: Pipeline) -> Pipeline:
    """Return ``pipeline`` without the passes that gather sites into regions."""
    return Pipeline(
        tuple(each for each in pipeline.passes if each.name != FormRegions.name), pipeline.name
    )
