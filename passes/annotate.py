"""Match the templates of one group and write on each matched node what is to be quantized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.aliasing import overwritten
from quantfx.passes.annotation import Annotation, annotation_of, set_annotation
from quantfx.passes.base import Context, Pass, PassResult, Remark
from quantfx.passes.boundary import operands
from quantfx.passes.errors import PipelineError
from quantfx.passes.graphs import all_graphs
from quantfx.passes.non_data import data_nodes
from quantfx.passes.recipe import Recipe
from quantfx.patterns.match import Edge, Match
from quantfx.patterns.matcher import Matcher


@dataclass(frozen=True)
class Annotate(Pass):
    """Base of the annotate passes; a subclass names the template group it matches."""

    group: ClassVar[str]
    provides: ClassVar[frozenset[str]] = frozenset({"annotated"})
    breaks: ClassVar[frozenset[str]] = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Annotate every match in every graph; nodes annotated before are not matched again."""
        recipe = context.recipe
        if recipe is None:
            raise PipelineError(f"{self.name} needs a recipe: run it with Context(recipe=...)")
        matcher = recipe.patterns.group(self.group).matcher()
        refuse = _Refuse(module, recipe)
        remarks: list[Remark] = []
        count = 0
        for path, graph_module in all_graphs(module):
            claimed = {n for n in graph_module.graph.nodes if annotation_of(n) is not None}
            for match in matcher.run(graph_module.graph, claimed):
                reason = refuse.reason(match)
                if reason is not None:
                    remarks.append(_missed(path, match.anchor, reason))
                    continue
                claimed.update(match.nodes.values())
                for node, annotation in _annotations(match, recipe):
                    set_annotation(node, annotation)
                count += 1
            remarks += _near_misses(matcher, graph_module, path, claimed)
        return PassResult(count > 0, tuple(remarks), {"matches": count})


class _Refuse:
    """Says why a match must not be quantized, by facts that only the whole module shows."""

    def __init__(self, module: GraphModule, recipe: Recipe) -> None:
        self._module = module
        self._recipe = recipe

    @cached_property
    def _written(self) -> Mapping[Node, Node]:
        graphs = (graph_module.graph for _, graph_module in all_graphs(self._module))
        return {node: writer for graph in graphs for node, writer in overwritten(graph).items()}

    @cached_property
    def _data(self) -> set[Node]:
        return data_nodes(self._module, operands(self._module))

    def reason(self, match: Match) -> str | None:
        quant = dict(match.template.quant)
        inside = set(match.nodes.values())
        for edge in match.edges():
            if edge.role not in quant:
                continue
            reason = _empty(edge.producer) or self._overwritten(edge.producer, inside)
            if reason is None and self._recipe.spec(quant[edge.role]).axis is None:
                reason = self._not_data(edge.producer)
            if reason is not None:
                return reason
        return self._overwritten(match.output, inside) if "out" in quant else None

    def _overwritten(self, node: Node, inside: set[Node]) -> str | None:
        """A quantize reads its tensor where that is computed, before another node writes to it."""
        writer = self._written.get(node)
        if writer is None or writer in inside:
            return None
        return f"{node.name} is overwritten in place by {writer.name}"

    def _not_data(self, node: Node) -> str | None:
        if node in self._data:
            return None
        return f"{node.name} is not data: it comes from integers, masks or shapes only"


def _annotations(match: Match, recipe: Recipe) -> Iterator[tuple[Node, Annotation]]:
    quant = dict(match.template.quant)
    edges = list(match.edges())
    for node in match.nodes.values():
        own = [edge for edge in edges if edge.node is node and edge.role in quant]
        is_output = node is match.output
        shares = [pair for role in _groups(own).values() for pair in _pairs(role)]
        output = None
        if is_output and "out" in quant:
            source = next(e for e in own if quant["out"] == f"same({e.role})")
            shares.append(("", source.slot))
            output = recipe.spec(quant[source.role])
        yield (
            node,
            Annotation(
                template=match.label,
                match=match.anchor.name,
                kind=_kind(match.anchor),
                kernel=match.template.kernel,
                reach=match.template.reach,
                inputs=tuple((edge.slot, recipe.spec(quant[edge.role])) for edge in own),
                output=output,
                shares=tuple(shares),
                is_output=is_output,
                pending=match.template.when == "inputs_quantized",
            ),
        )


def _groups(edges: list[Edge]) -> Mapping[str, list[Edge]]:
    groups: dict[str, list[Edge]] = {}
    for edge in edges:
        groups.setdefault(edge.role, []).append(edge)
    return groups


def _pairs(edges: list[Edge]) -> tuple[tuple[str, str], ...]:
    """Tie every element of a list argument to its first."""
    return tuple((edge.slot, edges[0].slot) for edge in edges[1:])


def _kind(anchor: Node) -> str:
    return str(anchor.target).split(".")[1].removesuffix("_")


def _empty(node: Node) -> str | None:
    value = node.meta.get("val")
    empty = isinstance(value, torch.Tensor) and 0 in value.shape
    return f"{node.name} holds no elements" if empty else None


def _near_misses(
    matcher: Matcher, module: GraphModule, path: str, claimed: set[Node]
) -> Iterator[Remark]:
    targets = {target for template in matcher.templates for target in template.anchor.targets}
    for target in sorted(targets, key=str):
        for node in module.graph.find_nodes(op="call_function", target=target):
            if node not in claimed:
                # A node that does match was refused before, with its own reason.
                for miss in matcher.explain(node, claimed)[:1]:
                    yield _missed(path, node, miss.reason)


def _missed(path: str, node: Node, reason: str) -> Remark:
    return Remark("missed", path, node.name, reason, str(node.target))
