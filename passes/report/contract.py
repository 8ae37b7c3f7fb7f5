"""The contract: every planned site is annotated and converted, or the reason is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.errors import ContractError
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.remark import ModelRemark, Remark, RuleRemark
from quantfx.passes.graph.scopes import module_scope
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.pipeline.permits import is_refusing
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.quant.annotation import Annotation, annotated
from quantfx.passes.quant.qdq import reads_quantized
from quantfx.passes.report.accounts import accounts
from quantfx.passes.report.float_remedy import remedy_of


@dataclass(frozen=True)
class PlannedMatch:
    """One match of a template, in a prepared or converted module.

    Attributes:
        site: The anchor.
        module: Dotted path of the user's module the anchor comes from.
        annotation: The annotation of the anchor.
        unconverted: Sites of the match that should read a dequantize but do not.
    """

    site: Site
    module: str
    annotation: Annotation
    unconverted: tuple[Site, ...]


def planned_matches(module: GraphModule) -> list[PlannedMatch]:
    """Return every match in ``module``, in graph order."""
    found: list[PlannedMatch] = []
    for path, graph_module in all_graphs(module):
        members: dict[str, list[tuple[Node, Annotation]]] = {}
        for node, annotation in annotated(graph_module.graph):
            members.setdefault(annotation.match, []).append((node, annotation))
        for nodes in members.values():
            first, annotation = nodes[0]
            site = Site(path, annotation.match)
            missing = tuple(site for each in nodes for site in _float_sites(path, *each))
            found.append(PlannedMatch(site, module_scope(first), annotation, missing))
    return found


def _float_sites(path: str, node: Node, annotation: Annotation) -> Iterator[Site]:
    for slot, _ in annotation.inputs:
        if not reads_quantized(read_slot(node, slot)):
            yield Site(path, node.name, slot)


def find_skipped(module: GraphModule, recipe: Recipe) -> list[Remark]:
    """Return each operator that stays float for a known reason.

    An operator's last reason counts; operators come in graph order. Operators that ``recipe`` does
    not mention are not listed here: see ``count_uncovered``.
    """
    return [
        Remark("missed", each.graph, each.node.name, each.reason, each.op)
        for each in accounts(module, recipe)
        if each.standing == "skipped"
    ]


def count_uncovered(module: GraphModule, recipe: Recipe) -> dict[str, int]:
    """Return how often each operator occurs that ``recipe`` does not mention.

    Operators of other libraries and control flow are included by name.
    """
    found = (each.op for each in accounts(module, recipe) if each.standing == "uncovered")
    return dict(sorted(Counter(found).items()))


def require_planned(module: GraphModule, recipe: Recipe) -> None:
    """Raise a ``ContractError`` with the near misses unless some template matched.

    If a bisection leaves sites float, no match is a valid result.
    """
    if planned_matches(module) or is_refusing():
        return
    missed = find_skipped(module, recipe)
    reasons = [f"rule {each.rule}: {each.reason}" for each in remarks_of(module, RuleRemark)]
    reasons += [_near_miss(each, recipe) for each in missed]
    others = [f"{op} x{count}" for op, count in count_uncovered(module, recipe).items()]
    why, fix = f"no template of '{recipe.name}' matches this graph", ""
    if kept := sum("kept float: " in each.message for each in missed):
        why = f"the config keeps {kept} operator(s) float, and no template matches the others"
        fix = "let the config quantize them, or "
    lines = [f"nothing to quantize: {why}"]
    if advice := dtype_advice(module):
        lines.append(advice)
    if reasons:
        lines += ["near misses:", *(f"  {reason}" for reason in reasons[:10])]
    if others:
        lines.append(f"operators without a template: {', '.join(others)}")
    raise ContractError(
        "\n".join(lines),
        rule="nothing-to-quantize",
        site=missed[0].node if missed else None,
        fix=f"{fix}pass strict=False to continue with a float graph",
    )


def _near_miss(missed: Remark, recipe: Recipe) -> str:
    remedy = remedy_of(missed.op, missed.message, recipe.name)
    return f"{missed.node} ({missed.op}): {missed.message}{f': {remedy}' if remedy else ''}"


def dtype_advice(module: GraphModule) -> str:
    """Return what to do if most weights have a dtype that no template takes, else ""."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            sizes[tensor.dtype] += tensor.numel()
    [(dtype, _)] = sizes.most_common(1) or [(torch.float32, 0)]
    if dtype == torch.float32:
        return ""
    why = next((f" ({each.reason})" for each in remarks_of(module, ModelRemark)), "")
    return (
        f"the model's weights are {str(dtype).removeprefix('torch.')}, and templates take float32: "
        f"quantize model.float(), with inputs and calibration data in float32{why}"
    )


def require_converted(module: GraphModule) -> None:
    """Raise a ``ContractError`` that names every planned site which reads a float tensor."""
    missing = [site for match in planned_matches(module) for site in match.unconverted]
    if missing:
        raise ContractError(
            f"{len(missing)} planned site(s) were not "
            f"converted: {', '.join(map(str, missing[:10]))}; each was annotated, but no pass of "
            "the pipeline put a q/dq pair there",
            rule="not-converted",
            site=str(missing[0]),
        )
