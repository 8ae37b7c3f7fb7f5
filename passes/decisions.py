"""What a config decides for each call and each tensor of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import Node

from quantfx.passes.errors import ConfigError, SpecError
from quantfx.passes.recipe import Recipe
from quantfx.passes.rule import ACTIVATIONS, WEIGHTS, Rule, TensorRead, merge
from quantfx.passes.selectors import CallSite, call_site, words_of
from quantfx.passes.spec import Concrete, QuantSpec
from quantfx.passes.spec_change import FLOAT, Change, Float
from quantfx.patterns.match import Edge
from quantfx.patterns.quant import quant_of
from quantfx.patterns.template import Mode, Template


@dataclass(frozen=True)
class Decision:
    """How one call is quantized.

    Attributes:
        mode: ``"float"`` for not at all.
        rule: The rule that says so; None is the config's default.
    """

    mode: Mode | Float
    rule: Rule | None

    @property
    def why(self) -> str:
        """What to change in the config to have it another way."""
        return "the config's default" if self.rule is None else f"rule {self.rule}"


class Decisions:
    """Answers for the nodes of one graph; each call is looked at once.

    Args:
        recipe: Its config decides; its vocabulary gives operators their names.
        graph: Path of the graph, "" for the top one.
    """

    def __init__(self, recipe: Recipe, graph: str) -> None:
        self._recipe = recipe
        self._graph = graph
        self._default = Decision(recipe.config.default or FLOAT, None)
        self._rules = sorted(recipe.config.rules, key=lambda rule: rule.selector.rank)
        self._words: Mapping[object, tuple[str, ...]] = words_of(recipe.patterns.vocabulary)
        self._selecting: dict[Node, tuple[CallSite, list[Rule]]] = {}

    def of(self, node: Node) -> Decision:
        """Return how ``node``, an operator call, is to be quantized."""
        for rule in reversed(self._rules_at(node)[1]):
            if rule.mode is not None:
                return Decision(rule.mode, rule)
        return self._default

    def float_rule(self, edge: Edge, template: Template) -> Rule | None:
        """Return the rule that keeps the tensor at ``edge`` float, if any does."""
        spoken = self._changes(edge, template)
        return spoken[-1][0] if spoken and spoken[-1][1] == FLOAT else None

    def spec(self, edge: Edge, template: Template) -> Concrete:
        """Return the spec of the tensor at ``edge``, with what the config changes in it.

        Raises:
            ConfigError: the changed spec contradicts itself, or is none that the backend's kernels
                take; names the rules.
        """
        spec = self._recipe.spec(_spec_name(edge, template))
        spoken = self._changes(edge, template)
        change = merge([each for _, each in spoken])
        if change is None or isinstance(change, str):
            return spec
        rules = ", ".join(str(rule) for rule, _ in spoken)
        where = f"rule {rules}: '{change}' does not fit {edge.node.name}.{edge.slot}"
        try:
            changed = change.apply(spec)
        except SpecError as error:
            raise ConfigError(f"{where}: {error}") from error
        required = _required(spec, changed)
        if required is not None:
            raise ConfigError(
                f"{where}: the kernels of backend '{self._recipe.name}' take {required}; use "
                "backend.with_specs(...) for graphs that are not compiled"
            )
        return changed

    def _changes(self, edge: Edge, template: Template) -> list[tuple[Rule, Change]]:
        """Return what rules say about a tensor, the most particular one last."""
        call, rules = self._rules_at(edge.node)
        if not rules:
            return []
        name = _spec_name(edge, template)
        kind = WEIGHTS if template.is_weight(edge.role) else ACTIVATIONS
        read = TensorRead(f"{call.name}.{edge.slot}", name, kind, self._recipe.spec(name))
        return [(rule, change) for rule in rules if (change := rule.change(read)) is not None]

    def _rules_at(self, node: Node) -> tuple[CallSite, list[Rule]]:
        """Return the rules that select ``node``, the most particular one last."""
        if node not in self._selecting:
            call = call_site(self._graph, node, self._words)
            selecting = [rule for rule in self._rules if rule.selector.selects(call)]
            self._selecting[node] = (call, selecting)
        return self._selecting[node]


def _required(spec: Concrete, changed: Concrete) -> str | None:
    """Return what kernels take of ``spec`` that ``changed`` is not.

    A kernel is made for one dtype, and for weights without zero point: Inductor ignores theirs.
    """
    if changed.dtype != spec.dtype:
        return f"{spec.dtype_name} there, not {changed.dtype_name}"
    if not isinstance(spec, QuantSpec) or not isinstance(changed, QuantSpec):
        return None
    if spec.axis is not None and spec.symmetric and not changed.symmetric:
        return "symmetric weights, without a zero point, not affine ones"
    return None


def _spec_name(edge: Edge, template: Template) -> str:
    return quant_of(dict(template.quant)[edge.role]).spec
