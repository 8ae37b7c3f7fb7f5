"""Find templates that repeat another, can never match, or name for nothing a role or template.

Templates become small labelled networkx graphs: vertices are operators and roles, edges carry the
argument name (operands that commute share one).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.template import Constant, PatternNode, Ref, Role, Template, Variant

if TYPE_CHECKING:
    import networkx as nx  # imported where it is used: the import takes a fifth of a second


@dataclass(frozen=True)
class Finding:
    """Something wrong with a template.

    Attributes:
        rule: The rule that found it.
        template: The template to change.
        message: What is wrong, as a sentence.
    """

    rule: Literal["duplicate", "shadowed", "unused-role", "unknown-template"]
    template: str
    message: str


def lint(patterns: PatternSet) -> tuple[Finding, ...]:
    """Return what is wrong with ``patterns``, in the order of its templates."""
    findings: list[Finding] = []
    for earlier, later in itertools.combinations(patterns.templates, 2):
        if (earlier.group, earlier.mode) == (later.group, later.mode):
            findings += _compare(earlier, later)
    for template in patterns.templates:
        findings += _unused_roles(template)
        if template.becomes not in ("", *patterns.names):
            message = f"it becomes '{template.becomes}', and the set has no such template"
            findings.append(Finding("unknown-template", template.name, message))
    order = {name: index for index, name in enumerate(patterns.names)}
    return tuple(sorted(findings, key=lambda finding: order[finding.template]))


def to_networkx(variant: Variant) -> nx.DiGraph[str]:
    """Return ``variant`` as a graph; an edge runs from producer to reader.

    Optional roles are omitted: a match does not need them.
    """
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in variant.nodes:
        graph.add_node(node.name, kind="op", targets=node.targets, literals=_literals(node))
    for node in variant.nodes:
        commuting = {name for op in node.ops for name in op.commutes or ()}
        for name, binding in node.arguments:
            label = "operand" if name in commuting else name
            if isinstance(binding, Role) and not binding.optional:
                graph.add_node(f"${binding.name}", kind="role", many=binding.many)
                graph.add_edge(f"${binding.name}", node.name, argument=label)
            elif isinstance(binding, Ref):
                graph.add_edge(binding.node, node.name, argument=label)
    return graph


def _literals(node: PatternNode) -> frozenset[str]:
    given = [f"{name}={b}" for name, b in node.arguments if isinstance(b, Constant)]
    required = [f"{name}={value!r}" for op in node.ops for name, value in op.where]
    return frozenset([*given, *required])


def _compare(earlier: Template, later: Template) -> Iterator[Finding]:
    """Yield at most one finding: ``earlier`` takes all matches of ``later`` or of one variant."""
    variants = list(later.variants())
    takers = [next((e for e in earlier.variants() if _takes(e, v)), None) for v in variants]
    if all(
        taker is not None and _equal(taker, v) for taker, v in zip(takers, variants, strict=True)
    ):
        yield Finding("duplicate", later.name, f"matches the same graphs as {earlier.name}")
        return
    for variant, taker in zip(variants, takers, strict=True):
        if taker is not None:
            yield Finding(
                "shadowed",
                later.name,
                f"its variant {variant.label} never matches: {taker.label} comes first and "
                "matches wherever it would",
            )


def _takes(earlier: Variant, later: Variant) -> bool:
    """Whether ``earlier`` matches, inside ``later``'s own nodes, wherever ``later`` does."""
    if not set(earlier.template.checks) <= set(later.template.checks):
        return False
    from networkx.algorithms.isomorphism import DiGraphMatcher

    matcher = DiGraphMatcher(
        to_networkx(later), to_networkx(earlier), node_match=_covers, edge_match=_same_argument
    )
    return bool(matcher.subgraph_is_monomorphic())


def _equal(a: Variant, b: Variant) -> bool:
    return _takes(a, b) and _takes(b, a)


def _covers(later: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    """Whether the ``earlier`` vertex accepts everything that the ``later`` vertex does."""
    if earlier["kind"] == "role":
        return bool(later["kind"] == "op" or later["many"] == earlier["many"])
    return bool(
        later["kind"] == "op"
        and later["targets"] <= earlier["targets"]
        and earlier["literals"] <= later["literals"]
    )


def _same_argument(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return bool(a["argument"] == b["argument"])


def _unused_roles(template: Template) -> Iterator[Finding]:
    """Yield required roles that are read once and neither quantized nor checked.

    Templates of float rewrites quantize nothing; the rewrite itself uses their roles.
    """
    if not template.quant:
        return
    used = set(template.quant) | {n for c in template.checks for n in c.arguments}
    reads = [b.name for n in template.nodes for _, b in n.arguments if isinstance(b, Role)]
    for role in template.roles:
        if not role.optional and role.name not in used and reads.count(role.name) == 1:
            yield Finding(
                "unused-role",
                template.name,
                f"{role} is neither quantized nor checked; to accept anything, leave it out",
            )
