"""What a config decides for each call and each tensor of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import Node

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.config.rule import ACTIVATIONS, WEIGHTS, CallRule, Rule, SpecUse, TensorRead
from quantfx.passes.config.selectors import CallSite, call_site, words_of
from quantfx.passes.config.spec_change import FLOAT, Change, Float, over
from quantfx.passes.errors import ConfigError, SpecError
from quantfx.passes.quant.spec import LEAST_GROUP, Concrete, QuantSpec
from quantfx.patterns.match import Edge, Match
from quantfx.patterns.template import Mode, Op, Template


@dataclass(frozen=True)
class Decision:
    """How one call is quantized.

    Attributes:
        mode: How the call is quantized; ``"float"`` for not at all.
        rule: The rule that decided; None for the config's default.
    """

    mode: Mode | Float
    rule: Rule | None

    @property
    def why(self) -> str:
        """The rule, or the default, to change for another decision."""
        return "the config's default" if self.rule is None else f"rule {self.rule}"


class Decisions:
    """Decisions for the nodes of one graph; each call is examined once.

    Args:
        recipe: The recipe, whose config decides and whose vocabulary names operators.
        graph: Path of the graph, "" for the top one.
    """

    def __init__(self, recipe: Recipe, graph: str) -> None:
        self._recipe = recipe
        self.graph = graph
        self._default = Decision(recipe.config.default, None)
        self._rules = sorted(recipe.config.rules, key=lambda rule: rule.selector.rank)
        self._words: Mapping[object, tuple[str, ...]] = words_of(recipe.patterns.vocabulary)
        self._selecting: dict[Node, tuple[CallSite, list[Rule]]] = {}

    def of(self, node: Node) -> Decision:
        """Return how to quantize ``node``, an operator call."""
        for rule in reversed(self._rules_at(node)[1]):
            if isinstance(rule, CallRule) and rule.mode is not None:
                return Decision(rule.mode, rule)
        return self._default

    def word_for(self, op: Op) -> str:
        """Return the word that people write for ``op``: ``lstm``, where templates say lstm_padded.

        A template that takes some overloads only has its own word for these, which begins with the
        word for all of them.
        """
        for known in self._recipe.patterns.vocabulary.values():
            if op.name.startswith(f"{known.name}_") and {*op.targets} <= {*known.targets}:
                return known.name
        return op.name

    def float_rule(self, edge: Edge, template: Template) -> Rule | None:
        """Return the rule that keeps the tensor at ``edge`` float, if any does."""
        return _keeps_float(self._changes(edge.node, self._read(edge, template)))

    def float_output(self, match: Match) -> Rule | None:
        """Return the rule that keeps the result of ``match`` float, if any does."""
        read = self._read_result(match)
        return None if read is None else _keeps_float(self._changes(match.output, read))

    def float_pack(self, match: Match) -> Rule | None:
        """Return the rule that keeps a weight float that the kernel of ``match`` packs, if any."""
        for role in match.template.packs:
            rule = _keeps_float(self._changes(match.anchor, self._read_packed(match, role)))
            if rule is not None:
                return rule
        return None

    def pack(self, match: Match, role: str) -> Concrete:
        """Return the spec of a weight that the kernel of ``match`` packs.

        Raises:
            ConfigError: as ``spec``.
        """
        return self._spec(match.anchor, self._read_packed(match, role))

    def spec(self, edge: Edge, template: Template) -> Concrete:
        """Return the spec of the tensor at ``edge`` with the config's changes applied.

        Raises:
            ConfigError: the changed spec contradicts itself, or the backend's kernels do not take
                it; names the rules.
        """
        return self._spec(edge.node, self._read(edge, template))

    def output(self, match: Match) -> Concrete:
        """Return the spec of a match's result: its own, or the spec of the input it shares with.

        Raises:
            ConfigError: as ``spec``.
        """
        read = self._read_result(match)
        if read is not None:
            return self._spec(match.output, read)
        role = match.template.quant["out"].roles[0]
        source = next(edge for edge in match.edges() if edge.role == role)
        return self.spec(source, match.template)

    def asked(self, match: Match) -> dict[Node, list[tuple[str, str, str]]]:
        """Return slot, spec name and the rules that change the spec, for each tensor of a match."""
        template = match.template
        found: dict[Node, list[tuple[str, str, str]]] = {}
        reads = [
            (edge.node, edge.slot, self._read(edge, template))
            for edge in match.edges()
            if edge.role in template.quant
        ]
        reads += [(match.anchor, role, self._read_packed(match, role)) for role in template.packs]
        result = self._read_result(match)
        if result is not None:
            reads.append((match.output, "", result))
        for node, slot, read in reads:
            rules = ", ".join(str(rule) for rule, _ in self._changes(node, read))
            found.setdefault(node, []).append((slot, read.use.name, rules))
        return found

    def _spec(self, node: Node, read: TensorRead) -> Concrete:
        spec = self._recipe.spec(read.use.name)
        spoken = self._changes(node, read)
        change: Change | None = None
        for _, each in spoken:
            change = over(change, each)
        if change is None or isinstance(change, str):
            return spec
        rules = ", ".join(str(rule) for rule, _ in spoken)
        where = f"rule {rules}"
        told = f"'{change}' does not fit {read.site}: "
        try:
            changed = change.apply(spec)
        except SpecError as error:
            raise error.within(where, ConfigError, told=told) from error
        required = _why_refused(spec, changed)
        if required is not None:
            message = f"{where}: {told}the kernels of backend '{self._recipe.name}' take {required}"
            fix = "use backend.with_specs(...) for graphs that are not compiled"
            raise ConfigError(message, rule="kernel-spec", site=str(read.site), fix=fix)
        return changed

    def _read(self, edge: Edge, template: Template) -> TensorRead:
        name = template.quant[edge.role].spec
        kind = WEIGHTS if template.is_weight(edge.role) else ACTIVATIONS
        call, _ = self._rules_at(edge.node)
        return TensorRead(f"{call.name}.{edge.slot}", SpecUse(name, kind))

    def _read_packed(self, match: Match, role: str) -> TensorRead:
        name = match.template.packs[role]
        edge = next(edge for edge in match.edges() if edge.role == role)
        call, _ = self._rules_at(match.anchor)
        slot = edge.slot.partition(".")[0]  # of a list, all elements alike
        return TensorRead(f"{call.name}.{slot}", SpecUse(name, WEIGHTS))

    def _read_result(self, match: Match) -> TensorRead | None:
        """Return a match's result as rules see it; None if the result has no spec of its own."""
        name = match.template.specs.get("out")
        if name is None:
            return None
        call, _ = self._rules_at(match.output)
        return TensorRead(call.name, SpecUse(name, ACTIVATIONS))

    def _changes(self, node: Node, read: TensorRead) -> list[tuple[Rule, Change]]:
        """Return the changes that rules make to a tensor, the most specific rule last."""
        _, rules = self._rules_at(node)
        return [(r, change) for r in rules if (change := self._change(r, read)) is not None]

    def _change(self, rule: Rule, read: TensorRead) -> Change | None:
        if isinstance(rule, CallRule):
            return self._recipe.changes[rule].get(read.use)
        return rule.change if rule.selector.selects_tensor(read.site) else None

    def _rules_at(self, node: Node) -> tuple[CallSite, list[Rule]]:
        """Return the rules that select ``node``, the most specific rule last."""
        if node not in self._selecting:
            call = call_site(self.graph, node, self._words)
            selecting = [rule for rule in self._rules if rule.selector.selects(call)]
            self._selecting[node] = (call, selecting)
        return self._selecting[node]


def _keeps_float(spoken: list[tuple[Rule, Change]]) -> Rule | None:
    return spoken[-1][0] if spoken and spoken[-1][1] == FLOAT else None


def _why_refused(spec: Concrete, changed: Concrete) -> str | None:
    """Return what kernels require of ``spec`` that ``changed`` violates; None if nothing.

    A kernel takes one dtype, and weights without zero point: Inductor ignores zero points of
    weights. Kernels that take groups take whole vectors; with a spec in groups, zero points too.
    """
    if changed.dtype != spec.dtype:
        return f"{spec.dtype_name} there, not {changed.dtype_name}"
    if not isinstance(spec, QuantSpec) or not isinstance(changed, QuantSpec):
        return None
    if changed.group is not None and spec.group is None and not spec.may_group:
        return "one scale for each channel, not groups"
    if changed.group is not None and changed.group % LEAST_GROUP:
        return f"groups of a multiple of {LEAST_GROUP} values, not {changed.group}"
    if spec.group is not None:
        return None
    if spec.axis is not None and spec.symmetric and not changed.symmetric:
        return "symmetric weights, without a zero point, not affine ones"
    return None
