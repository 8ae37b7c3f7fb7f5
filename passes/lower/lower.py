"""Rewrite q/dq subgraphs to the kernels that their templates name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.annotate.admissible import why_written
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.convert.refuse_empty import refuse_empty
from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.aliasing import writes_to
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.remark import AnyRemark, Remark
from quantfx.passes.lower.quantized_edges import quantized_edges
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily
from quantfx.passes.pipeline.permits import LEFT_FLOAT, may
from quantfx.passes.quant.annotation import Annotation, annotated, annotation_of
from quantfx.passes.quant.lowered import Lowered, set_lowered, set_site
from quantfx.patterns.errors import unknown_name
from quantfx.patterns.match import Match
from quantfx.patterns.matcher import Admission, Matcher
from quantfx.patterns.template import Template

_WITHOUT = ("fused", "reference")  # these reaches have no kernel


@dataclass(frozen=True)
class Lower(Pass):
    """``q(relu(conv2d(dq(x), dq(w)))) -> qconv_pointwise(x, w, "relu")``, by template.

    The backend's templates, with q and dq on their edges, are matched in the backend's order and
    handed to the first kernel family that takes them. If the family refuses a template, the next
    template is tried. A planned site that is not lowered stays unchanged, with a remark that says
    why. Unplanned sites are skipped, so a graph without annotations goes through ``ReadPlan``
    first.

    Attributes:
        float_dtype: Dtype of the float results of kernels, ``"bfloat16"`` under autocast; by
            default the dtype in the graph.
    """

    float_dtype: str = ""

    name = "lower"
    requires = frozenset({"qdq"})
    provides = frozenset({"lowered"})
    breaks = frozenset({"qdq"})
    keeps_float = False  # kernels may round ties differently

    def __post_init__(self) -> None:
        if self.float_dtype not in ("", "bfloat16"):
            raise unknown_name(PipelineError, "float_dtype", self.float_dtype, ("", "bfloat16"))

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Lower every graph."""
        if context.recipe is None or not context.kernels:
            message = f"{self.name} needs a recipe and kernels"
            fix = "run it with Context(...)"
            raise PipelineError(message, rule="no-recipe", site=self.name, fix=fix)
        for family in context.kernels:
            family.prepare()
        matcher = lowering_matcher(context.recipe)
        remarks: list[AnyRemark] = []
        lowered = 0
        for path, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            made = _Lowerer(context.recipe, context.kernels, path, editor, self._dtype)
            matches = matcher.run(graph_module.graph, admission=made)
            for match in sorted(matches, key=lambda match: match.anchor):
                made.lower(match)
            lowered += len(matches)
            if made.fails_empty:
                refuse_empty(module)
            remarks += [*editor.remarks, *_find_missed(matcher, graph_module, made)]
            editor.drop_unused_attributes()
        return PassResult(tuple(remarks), {"lowered": lowered})

    @property
    def _dtype(self) -> torch.dtype | None:
        return torch.bfloat16 if self.float_dtype else None


def lowering_matcher(recipe: Recipe) -> Matcher:
    """Return a matcher for the templates of kernels, with q and dq on their edges."""
    templates = [
        quantized_edges(template, recipe)
        for template in recipe.patterns.templates
        if template.reach in ("kernel", "loop", "layout") and (template.quant or template.packs)
    ]
    return Matcher(templates, recipe.patterns.vocabulary)


@dataclass(frozen=True)
class _Lowerer(Admission):
    """Decides which family takes a match of one graph, and rewrites the match."""

    recipe: Recipe
    families: Sequence[KernelFamily]
    path: str
    editor: Editor
    dtype: torch.dtype | None
    fails_empty: list[Site] = field(default_factory=list[Site])

    def tries(self, template: Template, anchor: Node) -> bool:
        """Whether the site was planned, and in the mode of ``template``.

        An unplanned operator between quantized tensors was left float for a reason: a rule of the
        config, or a check of its template. A bisection is asked here, before the site is matched,
        since other passes may have left the site unchanged.
        """
        annotation = annotation_of(anchor)
        if annotation is None or annotation.mode != template.mode:
            return False
        return annotation.reach in _WITHOUT or self.permits(annotation)

    def permits(self, annotation: Annotation) -> bool:
        """Whether a bisection lets the annotated match reach its kernel."""
        return may(self.editor.by, annotation.template, Site(self.path, annotation.match))

    def refuses(self, match: Match) -> str | None:
        """Return why no family can lower ``match``."""
        if reason := why_written(match):
            return reason
        candidate = self._candidate(match)
        family = self._family(candidate)
        if family is None:
            return f"no kernel family of the backend has {candidate.kernel or candidate.reach}"
        return family.refuses(candidate, self.editor)

    def lower(self, match: Match) -> None:
        """Write the kernel call and erase the nodes that it replaces."""
        candidate = self._candidate(match)
        family = self._family(candidate)
        assert family is not None, "refuses admitted the match"
        before = len(self.editor.made)
        emission = family.emit(candidate, self.editor)
        if not emission.takes_empty:
            self.fails_empty.append(candidate.site)
        for node in self.editor.made[before:]:
            set_site(node, candidate.site)
        replaced = self._replace(match, emission)
        # A kernel that packs a weight also quantizes it: no node says how.
        covers = () if match.template.packs or emission.rounds else replaced
        output = emission.stands_for.name
        lowered = Lowered(candidate.site, match.label, emission.kernel, covers, output)
        set_lowered(emission.node, lowered)

    def _candidate(self, match: Match) -> Candidate:
        packs = {role: self.recipe.spec(name) for role, name in match.template.packs.items()}
        annotation = annotation_of(match.anchor)
        packs |= dict(annotation.packs) if annotation is not None else {}
        return Candidate(Site(self.path, match.anchor.name), match, self.dtype, packs)

    def _family(self, candidate: Candidate) -> KernelFamily | None:
        return next((each for each in self.families if each.takes(candidate)), None)

    def _replace(self, match: Match, emission: Emission) -> tuple[str, ...]:
        """Let the result's users read the kernel call; return the unused nodes, in graph order."""
        self.editor.replace_uses(emission.stands_for, emission.node)
        erased: list[str] = []
        # List roles hold, e.g., the dequantizes of a cat.
        many = (bound for bound in match.roles.values() if isinstance(bound, tuple))
        pending = {*match.nodes.values(), *(node for bound in many for node in bound)}
        while pending:
            node = max(pending)
            pending.remove(node)
            if not node.users:
                erased.append(node.name)
                # If a kernel finds dynamic ranges itself, the nodes that found them are removed as
                # well.
                pending |= {each for each in node.all_input_nodes if _computes(each)}
                self.editor.erase(node)
        return tuple(reversed(erased))


def _computes(node: Node) -> bool:
    """Whether ``node`` only computes its value, without side effects."""
    return node.op == "call_function" and not writes_to(node)


def _find_missed(matcher: Matcher, module: GraphModule, admission: _Lowerer) -> Iterator[Remark]:
    """Yield, for each anchor that should have reached a kernel, why it did not."""
    for node, annotation in annotated(module.graph):
        if annotation.match != node.name or annotation.reach in _WITHOUT:
            continue
        misses = matcher.explain(node, admission=admission)
        reason = misses[0].reason if misses else f"no template of a kernel starts at {node.target}"
        if not admission.permits(annotation):
            reason = LEFT_FLOAT
        yield Remark("missed", admission.path, node.name, reason, str(node.target))
