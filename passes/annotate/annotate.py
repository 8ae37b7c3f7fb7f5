"""Match the templates of one group and annotate each matched node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.annotate.admissible import Admissible, ModuleFacts, why_float
from quantfx.passes.config.decisions import Decisions
from quantfx.passes.errors import PipelineError, SpecError
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.remark import AnyRemark, AskedSpecs, Remark, TriedTemplates
from quantfx.passes.observers.derived import DerivedFrom
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import Annotation, annotation_of, set_annotation
from quantfx.passes.quant.spec import Concrete, QuantSpec
from quantfx.patterns.errors import did_you_mean, unknown_name
from quantfx.patterns.match import Edge, Match
from quantfx.patterns.matcher import Matcher
from quantfx.patterns.pattern_set import known_groups
from quantfx.patterns.quant import Quant

# The groups of quantfx's own templates; other template sets may have more.
GROUPS = (
    "conv-bn",
    "conv",
    "linear",
    "mul",
    "attention",
    "matmul",
    "max-pool",
    "rnn",
    "embedding",
    "binary",
    "cat",
    "default",
    "batch-norm",
    "layer-norm",
    "fixed-qparams",
    "share-qparams",
    "propagate",
)
_LEAST_OF_WEIGHT = 2  # dimensions


@dataclass(frozen=True)
class Annotate(Pass):
    """Match the templates of one group; ``Annotate("conv")`` is called ``annotate-conv``.

    Attributes:
        group: A group of templates: one of quantfx's own, or of a loaded set. The recipe may have
            no templates of the group, e.g. if they were removed.

    Raises:
        PipelineError: the group is unknown; names the nearest one.
    """

    group: str

    name = "annotate"
    named_by = "group"
    provides = frozenset({"annotated"})
    breaks = frozenset({"shared"})

    def __post_init__(self) -> None:
        known = known_groups().union(GROUPS)
        if self.group not in known:
            raise PipelineError(
                f"no template has the group '{self.group}'{did_you_mean(self.group, known)}",
                rule="unknown-name",
                site=self.group,
                fix="load the templates of your own group first",
            )
        object.__setattr__(self, "name", f"annotate-{self.group}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """One name for each group of quantfx's own."""
        return tuple(f"annotate-{group}" for group in GROUPS)

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Annotate every match in every graph; nodes annotated before are not matched again."""
        recipe = context.require_recipe(self.name)
        known = {*GROUPS, *recipe.patterns.groups}
        if self.group not in known:
            raise unknown_name(
                PipelineError, "template of group", self.group, sorted(known), of=f"'{recipe.name}'"
            )
        matcher = recipe.patterns.group(self.group).matcher()
        facts = ModuleFacts(module)
        remarks: list[AnyRemark] = []
        count = 0
        for path, graph_module in all_graphs(module):
            decisions = Decisions(recipe, path)
            admission = Admissible(decisions, facts, self.name)
            claimed = {n for n in graph_module.graph.nodes if annotation_of(n) is not None}
            for match in matcher.run(graph_module.graph, claimed, admission):
                claimed.update(match.nodes.values())
                for node, annotation in _annotations(path, match, decisions):
                    set_annotation(node, annotation)
                remarks += _asked(path, match, decisions)
                count += 1
            for node in _find_left_over(matcher, graph_module, claimed):
                reason = why_float(node, matcher, claimed, admission)
                remarks.append(Remark("missed", path, node.name, reason, str(node.target)))
                admission.trail.setdefault(node, [])
            remarks += _tried(path, admission)
        return PassResult(tuple(remarks), {"matches": count})


def _find_left_over(matcher: Matcher, module: GraphModule, claimed: set[Node]) -> Iterator[Node]:
    """Yield the nodes that are an anchor of some template and that no match took."""
    targets = {target for template in matcher.templates for target in template.anchor.targets}
    for target in sorted(targets, key=str):
        for node in module.graph.find_nodes(op="call_function", target=target):
            if node not in claimed:
                yield node


def _tried(path: str, admission: Admissible) -> Iterator[TriedTemplates]:
    """Yield the templates tried at each node, with the config's decision there."""
    for node, tries in admission.trail.items():
        decision = admission.decisions.of(node)
        rule = "" if decision.rule is None else str(decision.rule)
        yield TriedTemplates(path, node.name, decision.mode, rule, tuple(tries))


def _asked(path: str, match: Match, decisions: Decisions) -> Iterator[AskedSpecs]:
    """Yield the specs of each node of a match, with the rules that changed them."""
    for node, specs in decisions.asked(match).items():
        yield AskedSpecs(path, node.name, tuple(specs))


def _annotations(
    path: str, match: Match, decisions: Decisions
) -> Iterator[tuple[Node, Annotation]]:
    quant = match.template.quant
    edges = [edge for edge in match.edges() if edge.role in quant and not _is_bias(edge, match)]
    sites = {edge.role: Site(path, edge.node.name, edge.slot) for edge in reversed(edges)}
    packs = tuple((role, decisions.pack(match, role)) for role in match.template.packs)
    for node in match.nodes.values():
        own = [edge for edge in edges if edge.node is node]
        is_output = node is match.output
        activations = [edge for edge in own if not match.template.is_weight(edge.role)]
        shares = [pair for role in _groups(activations).values() for pair in _pairs(path, role)]
        output = None
        if is_output and "out" in quant:
            output = decisions.output(match)
            if quant["out"].is_same:
                shares.append(("", sites[quant["out"].roles[0]]))
        yield (
            node,
            Annotation(
                template=match.label,
                match=match.anchor.name,
                kind=str(match.anchor.target).split(".")[1].removesuffix("_"),
                kernel=match.template.kernel,
                reach=match.template.reach,
                inputs=tuple(
                    (edge.slot, _spec(edge, match, decisions, quant[edge.role], sites))
                    for edge in own
                ),
                output=output,
                shares=tuple(shares),
                is_output=is_output,
                pending=match.template.when == "inputs_quantized",
                mode=match.template.mode,
                packs=packs,
            ),
        )


def _is_bias(edge: Edge, match: Match) -> bool:
    """Whether an edge of a list is a bias: a vector, in layers that list weights and biases."""
    if "." not in edge.slot or not match.template.is_weight(edge.role):
        return False
    value = edge.producer.meta.get("val")
    return isinstance(value, Tensor) and value.dim() < _LEAST_OF_WEIGHT


def _spec(
    edge: Edge, match: Match, decisions: Decisions, quant: Quant, sites: Mapping[str, Site]
) -> Concrete:
    """Return the spec of one edge; a derived spec gets the sites it depends on."""
    spec = decisions.spec(edge, match.template)
    if not quant.roles:
        return spec
    if not isinstance(spec, QuantSpec):
        message = f"'{quant.spec}' of {edge.node.name}: '{spec}' cannot have derived qparams"
        raise SpecError(message, rule="not-derivable", site=edge.node.name)
    return replace(spec, observer=DerivedFrom(tuple(sites[role] for role in quant.roles)))


def _groups(edges: list[Edge]) -> Mapping[str, list[Edge]]:
    groups: dict[str, list[Edge]] = {}
    for edge in edges:
        groups.setdefault(edge.role, []).append(edge)
    return groups


def _pairs(path: str, edges: list[Edge]) -> tuple[tuple[str, Site], ...]:
    """Tie every element of a list argument to its first element."""
    first = Site(path, edges[0].node.name, edges[0].slot)
    return tuple((edge.slot, first) for edge in edges[1:])
