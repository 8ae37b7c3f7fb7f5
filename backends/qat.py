"""The additions of a backend for quantization-aware training."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch.fx import GraphModule

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.clone import clone_as, recompile
from quantfx.passes.graph.facts import TRAINABLE, facts_of
from quantfx.passes.observe.insert_observers import InsertObservers
from quantfx.passes.observe.observe_channels import ObserveChannels
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import records_of
from quantfx.passes.quant.spec import Concrete, QuantSpec
from quantfx.passes.train.fuse_qat_conv_bn import FuseQatConvBn
from quantfx.passes.train.lift_dropout import LiftDropout
from quantfx.passes.train.place_dropout import PlaceDropout
from quantfx.passes.train.qat_module import QatModule
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.template import Check, Template

# Lower than any weight: a batch norm with a small gamma may make a whole folded channel small. A
# larger floor under its scale would round it to zero, where it gets no more gradient.
_EPS = 2**-40


@dataclass(frozen=True)
class Qat:
    """Quantization-aware training of one backend.

    Attributes:
        patterns: Templates with a batch norm, each named like a template of the backend with
            ``_bn`` added.
        finish: The pipeline from a trained module to the form that the convert pipeline takes.
    """

    patterns: PatternSet
    finish: Pipeline

    def recipe(self, recipe: Recipe) -> Recipe:
        """Return ``recipe`` for training: more templates, also for float64, and other floors."""
        # The backend must have the template without the batch norm, too, for the folded graph.
        fitting = tuple(
            template
            for template in self.patterns.templates
            if template.name.replace("_bn", "", 1) in recipe.patterns.names
        )
        patterns = replace(self.patterns, templates=fitting) | recipe.patterns
        weights = {
            quant.spec
            for template in patterns.templates
            for role, quant in template.quant.items()
            if template.is_weight(role)
        }
        return replace(
            recipe,
            patterns=replace(patterns, templates=tuple(map(_in_float64, patterns.templates))),
            specs=tuple((n, _lower_floor(s) if n in weights else s) for n, s in recipe.specs),
        )


def _in_float64(template: Template) -> Template:
    """Return the template for float64: kernels take float32, but a model may train so."""
    checks = tuple(
        Check("float32_or_float64", check.arguments) if check.name == "float32" else check
        for check in template.checks
    )
    return replace(template, checks=checks)


def _lower_floor(spec: Concrete) -> Concrete:
    return replace(spec, eps=min(spec.eps, _EPS)) if isinstance(spec, QuantSpec) else spec


def require_qat(qat: Qat | None, backend: str) -> Qat:
    """Return ``qat``.

    Raises:
        PipelineError: the backend does not train.
    """
    if qat is None:
        raise PipelineError(
            f"backend '{backend}' does not train: it leaves out the pass '{FuseQatConvBn.name}'.",
            rule="no-training",
            site=backend,
            fix="train with backend 'x86', or calibrate instead, without qat=True",
        )
    return qat


def require_trains(pipeline: Pipeline, graph: GraphModule) -> None:
    """Refuse graphs and pipelines that are for calibration only.

    Raises:
        PipelineError: the graph was captured in eval mode, or a pass needs calibration data.
    """
    if not isinstance(graph, GraphModule):
        fix = "use capture(model, ..., training=True) first"
        raise PipelineError(f"a {type(graph).__name__} is not a graph", rule="not-a-graph", fix=fix)
    if TRAINABLE not in facts_of(graph):
        fix = "use capture(model, ..., training=True) for qat=True"
        raise PipelineError("the graph was captured in eval mode", rule="captured-mode", fix=fix)
    if ObserveChannels.name in pipeline.names:
        message = f"pass '{ObserveChannels.name}' looks at calibration data only"
        fix = "prepare for training with a backend without it, e.g. x86(smooth=None)"
        raise PipelineError(message, rule="no-training", site=ObserveChannels.name, fix=fix)


def require_evaluates(graph: GraphModule, learn_scales: bool) -> None:
    """Refuse graphs and options that are for training only.

    Raises:
        PipelineError: the graph was captured for training, or scales are to be learned.
    """
    if learn_scales:
        message = "learn_scales=True is for training"
        fix = "pass qat=True as well"
        raise PipelineError(message, rule="training-option", site="learn_scales", fix=fix)
    if isinstance(graph, GraphModule) and TRAINABLE in facts_of(graph):
        fix = "pass qat=True, or capture(model.eval(), ...) to calibrate"
        raise PipelineError("the graph was captured for training", rule="captured-mode", fix=fix)


def fake_quantizing(pipeline: Pipeline, learn_scales: bool) -> Pipeline:
    """Return ``pipeline`` with fake-quantizes in place of observers."""
    insert = InsertObservers("learn" if learn_scales else "follow")
    return pipeline.replace(InsertObservers.name, insert)


def as_trainable(prepared: GraphModule) -> QatModule:
    """Return ``prepared``, which owns its tensors, as a module to train.

    Raises:
        PipelineError: some dropouts were not put back, or a submodule has a method's name.
    """
    counts = {"lifted": 0, "placed": 0}
    for record in records_of(prepared):
        for name in counts:
            counts[name] += record.stats.get(name, 0)
    if counts["lifted"] != counts["placed"]:
        raise PipelineError(
            f"'{LiftDropout.name}' took {counts['lifted']} dropouts out, '{PlaceDropout.name}' "
            f"put {counts['placed']} back: the model would train without the others",
            rule="lost-dropout",
            site=LiftDropout.name,
            fix=(
                f"put '{PlaceDropout.name}' behind '{InsertObservers.name}', and no pass between "
                "them that erases a reader"
            ),
        )
    taken = [name for name, _ in prepared.named_children() if hasattr(QatModule, name)]
    if taken:
        message = f"the model has a submodule '{taken[0]}', which is a method of the trained module"
        raise PipelineError(message, rule="taken-name", site=taken[0], fix="rename it")
    module = clone_as(prepared, QatModule)
    recompile(module)
    return module.train()
