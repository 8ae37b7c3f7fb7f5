"""Check that annotations agree with the template of each match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.boundary import GraphNode, operands, resolve
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.quant.annotation import Annotation, annotated, annotation_of
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.template import Variant

Planned: TypeAlias = tuple[Node, Annotation]


def wrong_plans(module: GraphModule, patterns: PatternSet) -> list[str]:
    """Return a line for each match that its template does not allow, or that is incomplete.

    Args:
        module: The graph after the share pass.
        patterns: The pattern set that matched.
    """
    variants = {each.label: each for template in patterns.templates for each in template.variants()}
    lines: list[str] = []
    outer = operands(module)
    for path, graph_module in all_graphs(module):
        matches: dict[tuple[str, str], list[Planned]] = {}
        for node, annotation in annotated(graph_module.graph):
            key = annotation.template, annotation.match
            matches.setdefault(key, []).append((node, annotation))
        for (label, anchor), planned in matches.items():
            variant = variants[label]
            found = [*_wrong_nodes(planned, variant), *_wrong_slots(planned, variant)]
            if variant.template.when == "inputs_quantized":
                found += _float_inputs(path, planned, outer)
            lines += [f"{label} at {anchor}: {each}" for each in found]
    return lines


def _wrong_nodes(planned: list[Planned], variant: Variant) -> Iterator[str]:
    """Yield differences of the nodes from the variant."""
    if len(planned) != len(variant.nodes):
        yield f"it has {len(planned)} nodes, not {len(variant.nodes)}"
    nodes = [node for node, _ in planned]
    for node, annotation in planned:
        if not annotation.is_output and any(user not in nodes for user in node.users):
            yield f"others read {node.name}, which is inside"
    same_shape = any(check.name == "same_shape" for check in variant.template.checks)
    for node, pattern in zip(nodes, variant.nodes, strict=False):
        shapes = {str(tuple(each.meta["val"].shape)) for each in node.all_input_nodes}
        if same_shape and any(op.commutes for op in pattern.ops) and len(shapes) > 1:
            yield f"{node.name} broadcasts"


def _wrong_slots(planned: list[Planned], variant: Variant) -> Iterator[str]:
    """Yield differences of the quantized slots from the template."""
    quant = variant.template.quant
    slots = [(node, slot) for node, annotation in planned for slot, _ in annotation.inputs]
    if len(slots) < len(quant.keys() - {"out"}):
        yield f"{len(slots)} inputs are quantized, not {', '.join(quant)}"
    for node, slot in slots:
        value = read_slot(node, slot).meta.get("val")
        if isinstance(value, Tensor) and value.dtype != torch.float32:
            yield f"{node.name}.{slot} is {value.dtype}"
    groups = {group for _, annotation in planned for _, group in annotation.groups}
    if "out" in quant and quant["out"].is_same and len(groups) > 1:
        yield f"int8 does not pass through groups {', '.join(sorted(groups))}"


def _float_inputs(
    path: str, planned: list[Planned], outer: Mapping[Node, GraphNode]
) -> Iterator[str]:
    """Yield the inputs that no static match yields."""
    for node, annotation in planned:
        for slot, _ in annotation.inputs:
            _, producer = resolve((path, read_slot(node, slot)), outer)
            source = annotation_of(producer)
            if source is None or not source.is_output or source.mode != "static":
                yield f"its input {producer.name} is float"
