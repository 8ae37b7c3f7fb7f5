"""Assign each call of a module to exactly one list of the report.

``planned``      a match of a template holds it
``skipped``      a template or the recipe mentions it, but it stays float for a reason ``uncovered``
nothing mentions it ``made``         a pass made it: q/dq, and nodes that passes say they added; not
of the model ``bookkeeping``  arithmetic on sizes, and taking one of several results; not an
operator either
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from torch.fx import GraphModule, Node

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.graph.editor import PROVENANCE_KEY
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.operator_name import is_bookkeeping, namespace, operator_name
from quantfx.passes.graph.remark import Remark, TriedTemplates
from quantfx.passes.pipeline.record import remarks_of
from quantfx.passes.quant.annotation import annotation_of

Standing = Literal["planned", "skipped", "uncovered", "made", "bookkeeping"]


class Account(NamedTuple):
    """One call.

    Attributes:
        graph: Path of its graph, "" for the top one.
        node: The call itself.
        standing: The list that it is in.
        op: Name of the operator, with its namespace.
        reason: Why it stays float; empty if it is quantized, or if nothing mentions it.
    """

    graph: str
    node: Node
    standing: Standing
    op: str
    reason: str = ""


def accounts(module: GraphModule, recipe: Recipe) -> Iterator[Account]:
    """Yield the account of every call_function node of every graph of ``module``, in order."""
    ledger = _Ledger(module, recipe)
    for path, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            if node.op == "call_function":
                standing, reason = ledger.look_up(path, node)
                yield Account(path, node, standing, operator_name(node), reason)


@dataclass(frozen=True)
class _Ledger:
    """The statements of passes and the recipe about nodes of ``module``."""

    module: GraphModule
    recipe: Recipe

    def look_up(self, path: str, node: Node) -> tuple[Standing, str]:
        if annotation_of(node) is not None:
            return "planned", ""
        # A model may hold such operators itself, without provenance.
        if (path, node.name) in self._applied or (
            namespace(node) == "quantized_decomposed" and PROVENANCE_KEY in node.meta
        ):
            return "made", ""
        # An operator's last reason counts.
        told = self._reasons.get((path, node.name))
        reason = self._lost(path, node, told) or told or self._defaults.get(node.target)
        if reason:
            return "skipped", reason
        return ("bookkeeping" if is_bookkeeping(node) else "uncovered"), ""

    @cached_property
    def _applied(self) -> frozenset[tuple[str, str]]:
        """Nodes that a pass made and remarked on."""
        return frozenset(
            (remark.graph, remark.node)
            for remark in remarks_of(self.module, Remark)
            if remark.kind == "applied"
        )

    @cached_property
    def _reasons(self) -> Mapping[tuple[str, str], str]:
        return {
            (remark.graph, remark.node): remark.message
            for remark in remarks_of(self.module, Remark)
            if remark.kind == "missed"
        }

    def _lost(self, path: str, node: Node, told: str | None) -> str:
        """Return that a match was lost, if otherwise only failures of other templates are known."""
        tried = self._tried.get((path, node.name), ())
        matched = next((label for label, failed in tried if not failed), "")
        if not matched or not (told is None or any(told == failed for _, failed in tried)):
            return ""
        return f"{matched} matched, and a pass lost the match"

    @cached_property
    def _tried(self) -> Mapping[tuple[str, str], tuple[tuple[str, str], ...]]:
        """The templates tried at each node by the last pass that tried any."""
        return {
            (each.graph, each.node): each.tries for each in remarks_of(self.module, TriedTemplates)
        }

    @cached_property
    def _defaults(self) -> Mapping[object, str]:
        """Why operators without a remark of a pass stay float."""
        templates = self.recipe.patterns.templates
        reasons: dict[object, str] = {
            target: why for op, why in self.recipe.patterns.unsupported for target in op.targets
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
