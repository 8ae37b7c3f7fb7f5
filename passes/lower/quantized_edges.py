"""Turn an annotation template into the template of its form in a q/dq graph.

``conv2d(x, w) -> relu`` turns into ``conv2d(dq(x), dq(w)) -> relu -> q``: a dequantize (or cast) on
every quantized edge, and a quantize after the result. So the same templates annotate and lower.
"""

from __future__ import annotations

from dataclasses import replace

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.pipeline.kernel_family import QUANTIZE, dequantize_name
from quantfx.passes.quant.qdq import (
    CAST,
    DEQUANTIZE_DYNAMIC,
    DEQUANTIZE_GROUPS,
    DEQUANTIZE_PER_CHANNEL,
    DEQUANTIZE_PER_TENSOR,
    QUANTIZE_PER_TENSOR,
)
from quantfx.passes.quant.spec import CastSpec
from quantfx.patterns.template import Binding, Check, Op, PatternNode, Ref, Role, Template

_DEQUANTIZE = Op("dequantize", (DEQUANTIZE_PER_TENSOR, DEQUANTIZE_PER_CHANNEL))
_GROUPS = Op("dequantize_groups", (DEQUANTIZE_GROUPS,))
_ROWS_OR_GROUPS = Op("dequantize_rows", (*_DEQUANTIZE.targets, DEQUANTIZE_GROUPS))
_DYNAMIC = Op("dequantize_dynamic", (DEQUANTIZE_DYNAMIC,))
_CAST = Op("cast", (CAST,))
_QUANTIZE = Op("quantize", (QUANTIZE_PER_TENSOR,))

# Checks of templates that a q/dq graph need not meet: they concern an execution order that kernel
# families ensure themselves, or readers that planning required. ``float32`` stays for roles that
# are still float there.
_OF_PLANS = ("distinct", "dies_here", "feeds")


def quantized_edges(template: Template, recipe: Recipe) -> Template:
    """Return ``template`` with a dequantize on each quantized edge and a quantize after it.

    The quantize may be absent from a match (the result is then float), unless the template passes
    int8 on (``reach = "layout"``). List roles keep their place; their elements are dequantizes,
    which the lowering code must check.

    Args:
        template: Template that quantizes at least one edge.
        recipe: Its specs decide which dequantize an edge gets.
    """
    edges: dict[str, PatternNode] = {}

    def through(binding: Binding) -> Binding:
        if not isinstance(binding, Role) or binding.many or binding.name not in template.quant:
            return binding
        name = dequantize_name(binding.name)
        edges[name] = PatternNode(
            name, (_op(template, binding.name, recipe),), (("input", binding),)
        )
        return Ref(name)

    nodes = tuple(
        replace(node, arguments=tuple((slot, through(each)) for slot, each in node.arguments))
        for node in template.nodes
    )
    output = next(template.variants()).output.name
    quantize = PatternNode(
        QUANTIZE, (_QUANTIZE,), (("input", Ref(output)),), optional=template.reach != "layout"
    )
    checks = tuple(check for check in template.checks if _holds(check, template))
    return replace(template, nodes=(*nodes, *edges.values(), quantize), checks=checks)


def _holds(check: Check, template: Template) -> bool:
    """Whether a q/dq graph must meet ``check`` as well."""
    of_integers = check.name == "float32" and template.quant.keys() & check.arguments
    lists = {role.name for role in template.roles if role.many} & template.quant.keys()
    of_lists = check.name == "constant" and not lists.isdisjoint(check.arguments)
    return check.name not in _OF_PLANS and not of_integers and not of_lists


def _op(template: Template, role: str, recipe: Recipe) -> Op:
    spec = recipe.spec(template.quant[role].spec)
    if isinstance(spec, CastSpec):
        return _CAST
    if spec.group is not None:
        return _GROUPS
    if spec.may_group:  # the config decides for each weight
        return _ROWS_OR_GROUPS
    return _DYNAMIC if spec.dynamic else _DEQUANTIZE
