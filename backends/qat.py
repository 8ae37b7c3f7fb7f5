"""What a backend needs for quantization-aware training beside what it has for calibration."""

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

# Lower than any weight: folded with a batch norm whose gamma is small, a whole channel may be, and
# a larger floor under its scale would round it to zero, where it gets no gradient any more.
_EPS = 2**-40


@dataclass(frozen=True)
class Qat:
    """Quantization-aware training of one backend.

    Attributes:
        patterns: Templates with a batch norm in them, each named as one of the backend's with
            ``_bn`` in it.
        finish: From a trained module to one that the convert pipeline takes.
    """

    patterns: PatternSet
    finish: Pipeline

    def recipe(self, recipe: Recipe) -> Recipe:
        """Return ``recipe`` for training: more templates, for float64 too, and other floors."""
        # What a template is once its batch norm is folded, the backend must have, too.
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
    """Kernels take float32, but a model may train in double precision on its way there."""
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
        PipelineError: there is none: the backend does not train.
    """
    if qat is None:
        raise PipelineError(
            f"backend '{backend}' does not train: it leaves out the pass '{FuseQatConvBn.name}'. "
            "Train with backend 'x86', or calibrate instead, without qat=True"
        )
    return qat


def require_trains(pipeline: Pipeline, graph: GraphModule) -> None:
    """Refuse what is for calibration only.

    Raises:
        PipelineError: the graph was captured in eval mode, or a pass looks at calibration data.
    """
    if not isinstance(graph, GraphModule):
        raise PipelineError(
            f"a {type(graph).__name__} is no graph: use capture(model, ..., training=True) first"
        )
    if TRAINABLE not in facts_of(graph):
        raise PipelineError(
            "the graph was captured in eval mode: capture(model, ..., training=True) for qat=True"
        )
    if ObserveChannels.name in pipeline.names:
        raise PipelineError(
            f"pass '{ObserveChannels.name}' looks at calibration data only: prepare for training "
            "with a backend without it, e.g. x86(smooth=None)"
        )


def require_evaluates(graph: GraphModule, learn_scales: bool) -> None:
    """Refuse what is for training only.

    Raises:
        PipelineError: the graph was captured for training, or scales are to be learned.
    """
    if learn_scales:
        raise PipelineError("learn_scales=True is for training: pass qat=True as well")
    if isinstance(graph, GraphModule) and TRAINABLE in facts_of(graph):
        raise PipelineError(
            "the graph was captured for training: pass qat=True, or capture(model.eval(), ...) to "
            "calibrate"
        )


def fake_quantizing(pipeline: Pipeline, learn_scales: bool) -> Pipeline:
    """Return ``pipeline`` with fake-quantize modules in the place of observers."""
    insert = InsertObservers("learn" if learn_scales else "follow")
    return pipeline.replace(InsertObservers.name, insert)


def as_trainable(prepared: GraphModule) -> QatModule:
    """Return ``prepared``, whose tensors are its own, as a module to train.

    Raises:
        PipelineError: some of its dropouts were not put back, or a submodule has a method's name.
    """
    counts = {"lifted": 0, "placed": 0}
    for record in records_of(prepared):
        for name in counts:
            counts[name] += record.stats.get(name, 0)
    if counts["lifted"] != counts["placed"]:
        raise PipelineError(
            f"'{LiftDropout.name}' took {counts['lifted']} dropouts out, '{PlaceDropout.name}' "
            f"put {counts['placed']} back: the model would train without the others. The second "
            f"belongs behind '{InsertObservers.name}', and no pass between them may erase a reader"
        )
    taken = [name for name, _ in prepared.named_children() if hasattr(QatModule, name)]
    if taken:
        raise PipelineError(
            f"the model has a submodule '{taken[0]}', which is a method of what trains: rename it"
        )
    module = clone_as(prepared, QatModule)
    recompile(module)
    return module.train()
