"""Find templates in a graph: anchored, in linear time, deterministically, and with reasons.

A template compiles to straight-line plans, one for each choice of its optional nodes and of the
order of commutative operands. A plan starts at an anchor found through FX's own op index. From
there it only follows an argument (one producer) or the single user of an inner node, so it never
searches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch.fx import Graph, Node

from quantfx.patterns.checks import PREDICATES
from quantfx.patterns.match import Bound, Match, NoMatch
from quantfx.patterns.schema import argument_value
from quantfx.patterns.template import Check, Constant, Op, PatternNode, Ref, Role, Template, Variant

_ABSENT = object()


@dataclass(frozen=True)
class _Step:
    """Reach ``node`` from the bound ``source``: as its argument ``slot``, or as its one user."""

    source: str
    slot: str
    node: PatternNode
    is_user: bool


@dataclass(frozen=True)
class _Plan:
    variant: Variant
    anchor: PatternNode
    steps: tuple[_Step, ...]
    checks: tuple[Check, ...]


@dataclass
class _State:
    plan: _Plan
    anchor: Node
    nodes: dict[str, Node] = field(default_factory=dict)
    roles: dict[str, Bound] = field(default_factory=dict)
    walked: bool = False
    checked: bool = False

    def fail(self, message: str, *values: Any) -> NoMatch:
        depth = len(self.nodes) + self.walked + self.checked
        return NoMatch(self.plan.variant.label, self.anchor, depth, message, values)


class Admission:
    """Lets a caller refuse matches that the templates allow; this base class refuses nothing.

    It is also told every attempt, in order.
    """

    def tries(self, template: Template, anchor: Node) -> bool:
        """Whether ``template`` is to be tried at ``anchor``."""
        return True

    def refuses(self, match: Match) -> str | None:
        """Return why ``match`` is refused, as a sentence; None admits it."""
        return None

    def tried(self, anchor: Node, result: Match | NoMatch) -> None:
        """Receive the result of a template variant at ``anchor``; not called while explaining."""


ADMIT_ALL = Admission()


class Matcher:
    """Finds templates; earlier templates claim nodes first, larger variants before smaller.

    Args:
        templates: In order of priority.
        vocabulary: Op name -> Op, for checks that name operators.
    """

    def __init__(self, templates: Iterable[Template], vocabulary: Mapping[str, Op]) -> None:
        self.templates = tuple(templates)
        self._vocabulary = vocabulary

    def run(
        self, graph: Graph, claimed: Iterable[Node] = (), admission: Admission = ADMIT_ALL
    ) -> list[Match]:
        """Return non-overlapping matches in ``graph``, in the order they were claimed.

        Args:
            graph: Without dead code.
            claimed: Nodes that earlier matches own.
            admission: Refuses matches; the next template is tried then.
        """
        taken = set(claimed)
        matches: list[Match] = []
        for template in self.templates:
            anchors = [a for a in _anchors(graph, template) if admission.tries(template, a)]
            for variant_plans in _plans(template):
                for anchor in anchors:
                    if anchor in taken:
                        continue
                    match = self._first(variant_plans, anchor, taken, admission)
                    if match is not None:
                        admission.tried(anchor, match)
                    if isinstance(match, Match):
                        taken.update(match.nodes.values())
                        matches.append(match)
        return matches

    def explain(
        self, node: Node, claimed: Iterable[Node] = (), admission: Admission = ADMIT_ALL
    ) -> list[NoMatch]:
        """Return why no template anchored at ``node``'s operator matches, deepest first."""
        taken = set(claimed)
        misses = [
            result
            for template in self.templates
            if node.target in template.anchor.targets and admission.tries(template, node)
            for variant_plans in _plans(template)
            if isinstance(result := self._first(variant_plans, node, taken, admission), NoMatch)
        ]
        return sorted(misses, key=lambda miss: -miss.depth)

    def _first(
        self, plans: tuple[_Plan, ...], anchor: Node, taken: set[Node], admission: Admission
    ) -> Match | NoMatch | None:
        """Return the first plan's match, else the deepest failure."""
        deepest: NoMatch | None = None
        for plan in plans:
            result = self._try(plan, anchor, taken, admission)
            if isinstance(result, Match):
                return result
            if deepest is None or result.depth > deepest.depth:
                deepest = result
        return deepest

    def _try(
        self, plan: _Plan, anchor: Node, taken: set[Node], admission: Admission
    ) -> Match | NoMatch:
        state = _State(plan, anchor)
        failure = _bind(state, plan.anchor, anchor, taken)
        if failure is not None:
            return failure
        for step in plan.steps:
            found = _user(state, step) if step.is_user else _producer(state, step)
            if isinstance(found, NoMatch):
                return found
            failure = _bind(state, step.node, found, taken)
            if failure is not None:
                return failure
        state.walked = True
        for rule in (_bind_arguments, _inner_roles, self._check):
            failure = rule(state)
            if failure is not None:
                return failure
        match = Match(plan.variant, state.nodes, state.roles)
        reason = admission.refuses(match)
        if reason is None:
            return match
        state.checked = True
        return state.fail("{}", reason)

    def _check(self, state: _State) -> NoMatch | None:
        for check in state.plan.checks:
            predicate = PREDICATES[check.name]
            names = check.arguments[: predicate.nodes]
            bound = [state.nodes.get(name) or state.roles.get(name) for name in names]
            if None in bound:  # an optional role that the call omits
                continue
            nodes = [n for b in bound for n in (b if isinstance(b, tuple) else (b,)) if n]
            ops = [self._vocabulary[name] for name in check.arguments[predicate.nodes :]]
            reason = predicate.function(nodes, ops)
            if reason is not None:
                return state.fail("{}: {}", check.name, reason)
        return None


def _anchors(graph: Graph, template: Template) -> list[Node]:
    """Return the live nodes whose operator may be the template's anchor, in graph order."""
    found = [
        node
        for target in template.anchor.targets
        for node in graph.find_nodes(op="call_function", target=target, sort=False)
        if node.users
    ]
    return sorted(found)


def _bind(state: _State, pattern: PatternNode, node: Node, taken: set[Node]) -> NoMatch | None:
    """Bind ``node`` if its operator and literals are those of ``pattern``."""
    op = next((op for op in pattern.ops if node.target in op.targets), None)
    if op is None:
        wanted = "|".join(op.name for op in pattern.ops)
        return state.fail("{} is {}, not {}", node.name, node.target, wanted)
    if node in taken:
        return state.fail("{} already belongs to another match", node.name)
    for name, value in op.where:
        if not _equals(argument_value(node, name), value):
            return state.fail(
                "{}.{} is {}, not {}", node.name, name, argument_value(node, name), value
            )
    state.nodes[pattern.name] = node
    return None


def _producer(state: _State, step: _Step) -> Node | NoMatch:
    consumer = state.nodes[step.source]
    value = argument_value(consumer, step.slot)
    if not isinstance(value, Node):
        return state.fail("{}.{} is {}, not a tensor", consumer.name, step.slot, value)
    if len(value.users) != 1:
        return state.fail("{} has {} users", value.name, len(value.users))
    return value


def _user(state: _State, step: _Step) -> Node | NoMatch:
    producer = state.nodes[step.source]
    if len(producer.users) != 1:
        return state.fail("{} has {} users", producer.name, len(producer.users))
    return next(iter(producer.users))


def _bind_arguments(state: _State) -> NoMatch | None:
    """Bind roles, and check references and literals, of every matched node."""
    for pattern in state.plan.variant.nodes:
        node = state.nodes[pattern.name]
        for name, binding in pattern.arguments:
            value = argument_value(node, name)
            if isinstance(binding, Ref):
                if value is not state.nodes[binding.node]:
                    return state.fail("{}.{} is not {}", node.name, name, binding.node)
            elif isinstance(binding, Constant):
                if not _equals(value, binding.value):
                    return state.fail("{}.{} is {}, not {}", node.name, name, value, binding.value)
            else:
                failure = _bind_role(state, binding, node, name, value)
                if failure is not None:
                    return failure
    return None


def _equals(given: Any, wanted: Any) -> bool:
    """Compare with a literal of a template; templates hold tuples where graphs hold lists."""
    if isinstance(wanted, tuple):
        return (
            isinstance(given, (list, tuple))
            and len(given) == len(wanted)
            and all(_equals(a, b) for a, b in zip(given, wanted, strict=True))
        )
    return bool(given == wanted)


def _bind_role(state: _State, role: Role, node: Node, slot: str, value: Any) -> NoMatch | None:
    bound = _as_tensors(role, value)
    if bound is _ABSENT:
        return state.fail("{}.{} is {}, not a tensor", node.name, slot, value)
    if role.name in state.roles and state.roles[role.name] != bound:
        return state.fail("{}.{} is not the same tensor as {}", node.name, slot, role)
    state.roles[role.name] = bound  # type: ignore[assignment]  # _ABSENT was ruled out above
    return None


def _as_tensors(role: Role, value: Any) -> Bound | object:
    if value is None:
        return None if role.optional else _ABSENT
    if role.many:
        items = tuple(value) if isinstance(value, (list, tuple)) else ()
        return items if items and all(_is_tensor(item) for item in items) else _ABSENT
    return value if _is_tensor(value) else _ABSENT


def _is_tensor(value: Any) -> bool:
    """Whether ``value`` is a node that yields a tensor (a SymInt is a node as well)."""
    return isinstance(value, Node) and isinstance(
        value.meta.get("val", _UNKNOWN), (torch.Tensor, _Unknown)
    )


class _Unknown:
    """Stands for the unknown value of a node without one; it may be a tensor."""


_UNKNOWN = _Unknown()


def _inner_roles(state: _State) -> NoMatch | None:
    """Refuse a role bound to a node of the match itself, as in ``add(conv, conv)``."""
    inner = set(state.nodes.values())
    for name, bound in state.roles.items():
        nodes = bound if isinstance(bound, tuple) else (bound,)
        for node in nodes:
            if node in inner:
                return state.fail("{} is both ${} and part of the match", node, name)
    return None


@lru_cache(maxsize=1024)
def _plans(template: Template) -> tuple[tuple[_Plan, ...], ...]:
    """Return the plans of each variant, one for each order of commutative operands."""
    return tuple(
        tuple(_compile(oriented) for oriented in _orientations(variant))
        for variant in template.variants()
    )


def _orientations(variant: Variant) -> Iterator[Variant]:
    """Yield the variant once for each order of the operands of its commutative nodes."""
    choices = [_swaps(node) for node in variant.nodes]
    for nodes in itertools.product(*choices):
        yield Variant(variant.template, tuple(nodes))


def _swaps(node: PatternNode) -> tuple[PatternNode, ...]:
    commutes = next((op.commutes for op in node.ops if op.commutes), None)
    if commutes is None:
        return (node,)
    swap = {commutes[0]: commutes[1], commutes[1]: commutes[0]}
    swapped = tuple((swap.get(name, name), binding) for name, binding in node.arguments)
    if all(isinstance(b, Role) for n, b in node.arguments if n in swap):
        return (node,)
    return (node, PatternNode(node.name, node.ops, swapped, node.optional))


def _compile(variant: Variant) -> _Plan:
    """Order the variant's nodes as a walk from the anchor, each step reaching one new node."""
    anchor = variant.nodes[0]
    reached = {anchor.name: anchor}
    waiting = {node.name: node for node in variant.nodes[1:]}
    steps: list[_Step] = []
    while waiting:
        step = next(_find_reachable(reached, waiting))
        steps.append(step)
        reached[step.node.name] = waiting.pop(step.node.name)
    dropped = {n.name for n in variant.template.nodes} - {n.name for n in variant.nodes}
    checks = tuple(c for c in variant.template.checks if dropped.isdisjoint(c.arguments))
    return _Plan(variant, anchor, tuple(steps), checks)


def _find_reachable(
    reached: Mapping[str, PatternNode], waiting: Mapping[str, PatternNode]
) -> Iterator[_Step]:
    for source in reached.values():
        for slot, binding in source.arguments:
            if isinstance(binding, Ref) and binding.node in waiting:
                yield _Step(source.name, slot, waiting[binding.node], is_user=False)
    for node in waiting.values():
        for slot, binding in node.arguments:
            if isinstance(binding, Ref) and binding.node in reached:
                yield _Step(binding.node, slot, node, is_user=True)
