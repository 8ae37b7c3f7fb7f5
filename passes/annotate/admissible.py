"""Which matches may be quantized, by the config and by facts of the whole module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.config.decisions import Decisions
from quantfx.passes.config.spec_change import FLOAT
from quantfx.passes.graph.aliasing import overwritten, who_sees, written_between
from quantfx.passes.graph.boundary import operands
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.non_data import data_nodes
from quantfx.passes.pipeline.permits import LEFT_FLOAT, may
from quantfx.passes.quant.spec import QuantSpec
from quantfx.patterns.match import Edge, Match, NoMatch
from quantfx.patterns.matcher import Admission, Matcher
from quantfx.patterns.sizes import known_true
from quantfx.patterns.template import Template


class ModuleFacts:
    """Facts that need all graphs of a module, computed on first use."""

    def __init__(self, module: GraphModule) -> None:
        self._module = module

    @cached_property
    def written(self) -> Mapping[Node, Node]:
        """Node whose tensor is overwritten in place -> the node that overwrites it."""
        graphs = (graph_module.graph for _, graph_module in all_graphs(self._module))
        return {node: writer for graph in graphs for node, writer in overwritten(graph).items()}

    @cached_property
    def data(self) -> set[Node]:
        """Nodes that carry data."""
        return data_nodes(self._module, operands(self._module))


class Admissible(Admission):
    """Admits the matches of one graph that may be quantized.

    Args:
        decisions: The config's decisions for this graph.
        facts: Facts of the whole module.
        by: Name of the pass that matches.

    Attributes:
        trail: Node -> ``(template, first rule that failed)`` of each template tried there, in
            order; "" if it matched.
    """

    def __init__(self, decisions: Decisions, facts: ModuleFacts, by: str) -> None:
        self.decisions = decisions
        self.trail: dict[Node, list[tuple[str, str]]] = {}
        self._facts = facts
        self._by = by

    def tried(self, anchor: Node, result: Match | NoMatch) -> None:
        """Record the attempt as text: later matches change the nodes that a reason names."""
        reason = "" if isinstance(result, Match) else result.reason
        self.trail.setdefault(anchor, []).append((result.label, reason))

    def tries(self, template: Template, anchor: Node) -> bool:
        """Whether the config wants the template's mode at ``anchor``."""
        decision = self.decisions.of(anchor)
        if template.on_request and decision.rule is None:
            return False
        return decision.mode in template.modes

    def refuses(self, match: Match) -> str | None:
        """Return why ``match`` must not be quantized; a bisection is asked last."""
        reason = why_written(match) or self._why_inadmissible(match)
        if reason is None and not may(self._by, match.label, self._site(match)):
            return LEFT_FLOAT
        return reason

    def _site(self, match: Match) -> Site:
        return Site(self.decisions.graph, match.anchor.name)

    def _why_inadmissible(self, match: Match) -> str | None:
        for node in match.nodes.values():
            decision = self.decisions.of(node)
            # The default is not about an activation function in particular, which may be fused.
            if decision.mode == FLOAT and decision.rule is not None:
                return f"{node.name} is kept float: {decision.why}"
        inside = set(match.nodes.values())
        for edge in match.edges():
            if edge.role in match.template.quant:
                reason = self._refuses_edge(edge, match.template, inside)
                if reason is not None:
                    return reason
        rule = self.decisions.float_pack(match)
        if rule is not None:
            return f"the weights of {match.anchor.name} are kept float: rule {rule}"
        if "out" not in match.template.quant:
            return None
        rule = self.decisions.float_output(match)
        if rule is not None:
            return f"{match.output.name} is kept float: rule {rule}"
        return _why_empty(match.output) or self._why_overwritten(match.output, inside)

    def _refuses_edge(self, edge: Edge, template: Template, inside: set[Node]) -> str | None:
        rule = self.decisions.float_rule(edge, template)
        if rule is not None:
            return f"{edge.node.name}.{edge.slot} is kept float: rule {rule}"
        reason = _why_empty(edge.producer) or self._why_overwritten(edge.producer, inside)
        if reason is None and not template.is_weight(edge.role):
            reason = self._why_not_data(edge.producer)
        return reason or _why_not_float(edge.producer) or self._why_no_groups(edge, template)

    def _why_no_groups(self, edge: Edge, template: Template) -> str | None:
        """Return why the rows of a weight do not divide into the groups of its spec."""
        spec = self.decisions.spec(edge, template)
        value = edge.producer.meta.get("val")
        if not isinstance(spec, QuantSpec) or spec.group is None or value is None:
            return None
        if value.shape[-1] % spec.group == 0:
            return None
        return f"rows of {value.shape[-1]} values do not divide into groups of {spec.group}"

    def _why_overwritten(self, node: Node, inside: set[Node]) -> str | None:
        """Return which node overwrites a tensor: a quantize would read the value before that."""
        writer = self._facts.written.get(node)
        if writer is None or writer in inside:
            return None
        return f"{node.name} is overwritten in place by {writer.name}"

    def _why_not_data(self, node: Node) -> str | None:
        if node in self._facts.data:
            return None
        return f"{node.name} is not data: it comes from integers, masks or shapes only"


def why_written(match: Match) -> str | None:
    """Return which write in place forbids one kernel for the whole match."""
    inside = set(match.nodes.values())
    for node in match.nodes.values():
        if seen := who_sees(node):
            return f"{node.name} writes in place, which {seen.name} sees"
    for edge in match.edges():  # the kernel stands at the last node, and reads there
        writer = written_between(edge.producer, edge.node, match.output)
        if writer is not None and writer not in inside:
            return f"{edge.producer.name} is overwritten in place by {writer.name}"
    return None


def why_float(node: Node, matcher: Matcher, claimed: set[Node], admission: Admissible) -> str:
    """Return why no template took ``node``, although it is the anchor of some template."""
    decision = admission.decisions.of(node)
    if decision.mode == FLOAT:
        return f"kept float: {decision.why}"
    templates = [t for t in matcher.templates if node.target in t.anchor.targets]
    op = next(op for op in templates[0].anchor.ops if node.target in op.targets)
    word = admission.decisions.word_for(op)
    of_mode = [template for template in templates if decision.mode in template.modes]
    if not of_mode:
        modes = ", ".join(dict.fromkeys(mode for template in templates for mode in template.modes))
        return f"no {decision.mode} template takes {word}, only {modes} ({decision.why})"
    if all(template.on_request for template in of_mode) and decision.rule is None:
        return f"quantized on request only: select it, config.op('{word}', '{decision.mode}')"
    misses = matcher.explain(node, claimed, admission)
    return misses[0].reason if misses else "it already belongs to another match"


def _why_empty(node: Node) -> str | None:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    # A size that depends on data is not known: it may be 0 in some call.
    empty = any(known_true(size == 0) for size in value.shape)
    return f"{node.name} holds no elements" if empty else None


def _why_not_float(node: Node) -> str | None:
    """Return why ``node`` is not float: complex numbers and 8-bit images carry data as well."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.is_floating_point():
        return None
    return f"{node.name} holds {str(value.dtype).removeprefix('torch.')}, not floats"
