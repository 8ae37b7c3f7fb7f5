"""Find the quantized operators of a q/dq graph without annotations."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.scopes import op_name
from quantfx.passes.lower.lower import lowering_matcher
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import Annotation, annotation_of, set_annotation
from quantfx.passes.quant.qdq import dequantizes
from quantfx.patterns.matcher import Matcher
from quantfx.patterns.schema import argument_value, arguments, is_operator_call, overload


class ReadPlan(Pass):
    """Annotate ``conv2d(dq(x), dq(w))`` in a graph of another quantizer, or a retraced graph.

    A site is planned if a kernel's template matches it, including q and dq on its edges. Every
    other operator that reads a dequantized weight and a dequantized activation is planned too, so
    that it is reported even if no template takes it.
    """

    name = "read-plan"
    requires = frozenset({"qdq"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Annotate anchors; anchors that have an annotation keep it."""
        matcher = lowering_matcher(context.require_recipe(self.name))
        count = 0
        for _, graph_module in all_graphs(module):
            claimed = {n for n in graph_module.graph.nodes if annotation_of(n) is not None}
            for node, annotation in _find_planned(matcher, graph_module, claimed):
                set_annotation(node, annotation)
                count += 1
        return PassResult(stats={"planned": count})


def _find_planned(
    matcher: Matcher, module: GraphModule, claimed: set[Node]
) -> Iterator[tuple[Node, Annotation]]:
    for match in matcher.run(module.graph, claimed):
        template = match.template
        claimed.update(match.nodes.values())
        yield (
            match.anchor,
            Annotation(
                match.label,
                match.anchor.name,
                op_name(match.anchor),
                template.kernel,
                template.reach,
                mode=template.mode,
            ),
        )
    for node in module.graph.nodes:
        if node not in claimed and _is_quantized_layer(node):
            yield node, Annotation("", node.name, op_name(node), "", "kernel")


def _is_quantized_layer(node: Node) -> bool:
    if not is_operator_call(node) or not {"input", "weight"} <= arguments(overload(node)).keys():
        return False
    given = (argument_value(node, name) for name in ("input", "weight"))
    return all(isinstance(each, Node) and dequantizes(each) for each in given)
