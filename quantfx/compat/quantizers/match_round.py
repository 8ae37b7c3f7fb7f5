"""A round of matching: annotate passes on a part of a model, with results as PT2E annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantfx.compat.terms.specs import (
    ANNOTATION_KEY,
    QuantizationAnnotation,
    SharedQuantizationSpec,
)
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.scopes import module_scope, module_stack
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.annotation import Annotation, annotation_of, set_annotation
from quantfx.patterns.schema import argument_value, arguments, is_operator_call, overload
from quantfx.patterns.template import Op

Selected = Callable[[Node], bool]
# The annotation that matching sees on a node that it must not touch.
_TAKEN = Annotation("taken", match="", kind="", kernel="", reach="fused")
_LINEAR = torch.ops.aten.linear.default
_WEIGHT, _BIAS = "weight", "bias"


@dataclass
class InductorQuantizationAnnotation(QuantizationAnnotation):
    """The annotation that quantizers for Inductor write.

    Attributes:
        _is_output_of_quantized_pattern: Whether the result leaves a match whose kernel is int8.
    """

    _is_output_of_quantized_pattern: bool = False


def selected_by_module(name: str) -> Selected:
    """Return a predicate that selects nodes from the module ``name`` or from inside it."""
    return lambda node: any(path == name for path, _ in module_stack(node))


def selected_by_op(
    chosen: tuple[str, ...], choices: tuple[str, ...], vocabulary: Mapping[str, Op]
) -> Selected:
    """Return a predicate that rejects only operators of ``choices`` other than ``chosen``.

    Operators outside of ``choices`` belong to a match of a chosen one, or to none.
    """
    refused = {
        target
        for word in choices
        if word not in chosen and word in vocabulary
        for target in vocabulary[word].targets
    }
    return lambda node: node.target not in refused


@dataclass
class Round:
    """Matches once, and leaves only PT2E annotations on the model.

    Attributes:
        model: A graph that a quantizer was given.
        passes: The annotate passes.
        context: Context of the passes.
    """

    model: GraphModule
    passes: Pipeline
    context: Context

    def run(self, selected: Selected, config: Any) -> None:
        """Annotate every match that lies in the selected part and overlaps no earlier match.

        Args:
            selected: Whether a node is in the selected part.
            config: The specs; None notes that the matches stay float.
        """
        nodes = [node for _, each in all_graphs(self.model) for node in each.graph.nodes]
        anchors, trained = self._anchors(), self._trained_labels()
        barred = {node for node in _behind_repeated_linears(nodes) if node.target not in anchors}
        barred.update(node for node in nodes if _is_integer(node))
        for node in nodes:
            set_annotation(node, _TAKEN if node in barred else _annotation_before(node, selected))
        try:
            for each in self.passes:
                each.run(self.model, self.context)
            for node in nodes:
                found = annotation_of(node)
                if config is None and found is None and node.target in anchors:
                    found = replace(_TAKEN, match=node.name)  # float, whatever its inputs
                if found is not None and found.match and ANNOTATION_KEY not in node.meta:
                    written = _write_annotation(node, found, config)
                    if config is not None and found.is_output and found.template in trained:
                        written.output_qspec = config.output_activation
                    node.meta[ANNOTATION_KEY] = written
        finally:
            for node in nodes:
                set_annotation(node, None)

    def _trained_labels(self) -> set[str]:
        """Return the labels of matches with a batch norm, whose result PT2E observes as well."""
        patterns = self.context.recipe.patterns if self.context.recipe else None
        templates = patterns.group("conv-bn").templates if patterns else ()
        return {variant.label for template in templates for variant in template.variants()}

    def _anchors(self) -> set[object]:
        recipe = self.context.recipe
        templates = recipe.patterns.templates if recipe else ()
        return {target for template in templates for target in template.anchor.targets}


def _behind_repeated_linears(nodes: list[Node]) -> Iterator[Node]:
    """Yield readers of linears whose module is called repeatedly, in a non-strict export.

    PT2E quantizers match modules there, and a module with several results has no operator behind
    it. A strict export distinguishes the calls by ``source_fn_stack``.
    """
    calls: dict[str, list[Node]] = {}
    for node in nodes:
        if node.target is _LINEAR and "source_fn_stack" not in node.meta:
            calls.setdefault(module_scope(node), []).append(node)
    for scope, repeated in calls.items():
        if scope and len(repeated) > 1:
            yield from (user for node in repeated for user in node.users)


def _is_integer(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not value.is_floating_point()


def _annotation_before(node: Node, selected: Selected) -> Annotation | None:
    """Return the annotation that matching sees on ``node``; nodes of earlier rounds yield int8."""
    written: Any = node.meta.get(ANNOTATION_KEY)
    if getattr(written, "_is_output_of_quantized_pattern", False):
        return Annotation("earlier", match="", kind="", kernel="", reach="fused", is_output=True)
    if written is not None or not selected(node):
        return _TAKEN
    return None


def _write_annotation(node: Node, found: Annotation, config: Any) -> InductorQuantizationAnnotation:
    if config is None:
        return InductorQuantizationAnnotation(_annotated=True)
    written = InductorQuantizationAnnotation(
        _annotated=True, _is_output_of_quantized_pattern=found.is_output
    )
    shares = dict(found.shares)
    for slot, _ in found.inputs:
        producer = read_slot(node, slot)
        if producer in written.input_qspec_map:
            continue
        shared = shares.get(slot)
        written.input_qspec_map[producer] = (
            SharedQuantizationSpec((read_slot(node, shared.slot), node))
            if shared is not None
            else _spec(slot, config)
        )
    if _BIAS in _names(node) and config.bias is not None:
        bias = argument_value(node, _BIAS)
        if isinstance(bias, Node):
            written.input_qspec_map[bias] = config.bias
    if "" in shares and config.input_activation is not None:
        written.output_qspec = SharedQuantizationSpec((read_slot(node, shares[""].slot), node))
    return written


def _names(node: Node) -> Mapping[str, object]:
    return arguments(overload(node)) if is_operator_call(node) else {}


def _spec(slot: str, config: Any) -> Any:
    return config.weight if slot == _WEIGHT else config.input_activation
