"""The contract: what was planned is annotated and converted, or the reason is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from quantfx.passes.annotation import Annotation, annotation_of
from quantfx.passes.base import Remark
from quantfx.passes.canonical_order import module_scope
from quantfx.passes.check_config import RULE
from quantfx.passes.errors import ContractError
from quantfx.passes.graphs import Site, all_graphs
from quantfx.passes.pass_record import records_of
from quantfx.passes.qdq import reads_quantized
from quantfx.passes.recipe import Recipe
from quantfx.passes.slots import read_slot
from quantfx.patterns.schema import is_aten_call


@dataclass(frozen=True)
class PlannedMatch:
    """One match of a template, in a prepared or converted module.

    Attributes:
        site: The anchor.
        module: Dotted path of the user's module the anchor comes from.
        annotation: What the annotate pass wrote on the anchor.
        unconverted: Sites of the match that should read a dequantize and do not.
    """

    site: Site
    module: str
    annotation: Annotation
    unconverted: tuple[Site, ...]


def planned_matches(module: GraphModule) -> list[PlannedMatch]:
    """Return every match in ``module``, in graph order."""
    found: list[PlannedMatch] = []
    for path, graph_module in all_graphs(module):
        members: dict[str, list[Node]] = {}
        for node in graph_module.graph.nodes:
            annotation = annotation_of(node)
            if annotation is not None:
                members.setdefault(annotation.match, []).append(node)
        for nodes in members.values():
            annotation = annotation_of(nodes[0])
            if annotation is not None:
                site = Site(path, annotation.match)
                missing = tuple(site for node in nodes for site in _float_sites(path, node))
                found.append(PlannedMatch(site, module_scope(nodes[0]), annotation, missing))
    return found


def _float_sites(path: str, node: Node) -> Iterator[Site]:
    annotation = annotation_of(node)
    for slot, _ in annotation.inputs if annotation else ():
        if not reads_quantized(read_slot(node, slot)):
            yield Site(path, node.name, slot)


def skipped(module: GraphModule, recipe: Recipe) -> list[Remark]:
    """Return rules of the config in vain, then each operator that stays float for a known reason.

    An operator's last reason counts; they come in graph order. Operators about which ``recipe``
    says nothing are not listed here: see ``uncovered``.
    """
    remarks = [remark for record in records_of(module) for remark in record.remarks]
    missed = [remark for remark in remarks if remark.kind == "missed"]
    # A node that a pass made, and said so, is no operator of the user's.
    applied = {(remark.graph, remark.node) for remark in remarks if remark.kind == "applied"}
    reasons = {(remark.graph, remark.node): remark for remark in missed}
    defaults = _default_reasons(recipe)
    found = [remark for remark in missed if remark.op == RULE]
    for path, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            if annotation_of(node) is not None or node.op != "call_function":
                continue
            if (path, node.name) in applied:
                continue
            remark = reasons.get((path, node.name))
            if remark is None and node.target in defaults:
                remark = Remark("missed", path, node.name, defaults[node.target], str(node.target))
            if remark is not None:
                found.append(remark)
    return found


def _default_reasons(recipe: Recipe) -> dict[object, str]:
    """Return why an operator stays float about which no pass left a remark."""
    templates = recipe.patterns.templates
    reasons: dict[object, str] = {
        target: why for op, why in recipe.patterns.unsupported for target in op.targets
    }
    inner: dict[object, set[str]] = {}
    for template in templates:
        for target in template.targets:
            inner.setdefault(target, set()).update(op.name for op in template.anchor.ops)
    for fused, behind in inner.items():
        reasons[fused] = f"only taken as part of a match of {', '.join(sorted(behind))}"
    anchors = {t: each for each in templates for t in each.anchor.targets}
    for target, template in anchors.items():
        reasons[target] = f"no pass of the pipeline matches group '{template.group}'"
    return reasons


def uncovered(module: GraphModule, recipe: Recipe) -> dict[str, int]:
    """Return how often each operator occurs about which ``recipe`` says nothing."""
    known = _default_reasons(recipe).keys()
    counts: dict[str, int] = {}
    for _, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            if is_aten_call(node) and node.target not in known and _is_aten(node):
                counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return dict(sorted(counts.items()))


def _is_aten(node: Node) -> bool:
    return str(node.target).startswith("aten.")


def require_planned(module: GraphModule, recipe: Recipe) -> None:
    """Raise a ``ContractError`` with the near misses unless some template matched."""
    if planned_matches(module):
        return
    reasons = [f"{r.node} ({r.op}): {r.message}" for r in skipped(module, recipe)[:10]]
    others = [f"{op} x{count}" for op, count in uncovered(module, recipe).items()]
    lines = [f"nothing to quantize: no template of '{recipe.name}' matches this graph"]
    if reasons:
        lines += ["near misses:", *(f"  {reason}" for reason in reasons)]
    if others:
        lines.append(f"operators without a template: {', '.join(others)}")
    lines.append("pass strict=False to go on with a float graph")
    raise ContractError("\n".join(lines))


def require_converted(module: GraphModule) -> None:
    """Raise a ``ContractError`` that names every planned site which reads a float tensor."""
    missing = [site for match in planned_matches(module) for site in match.unconverted]
    if missing:
        raise ContractError(
            f"{len(missing)} planned site(s) were not converted: "
            f"{', '.join(map(str, missing[:10]))}; each was annotated, but no pass of the "
            "pipeline put a q/dq pair there"
        )
