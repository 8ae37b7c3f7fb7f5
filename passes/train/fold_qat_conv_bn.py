"""Fold the batch norms of a trained graph into the weights that training rounded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.errors import CalibrationError, PassError
from quantfx.passes.graph.batch_norm import (
    COUNTS,
    counter_of,
    scale_channels,
    set_bias,
    statistics_of,
)
from quantfx.passes.graph.editor import Editor
from quantfx.passes.layers.scaled_layer import (
    KEY,
    BatchNormScale,
    ScaledLayer,
    raw_scale,
    scaled_layer_of,
)
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.annotation import annotated, annotation_of, set_annotation
from quantfx.patterns.schema import argument_value, set_argument


@dataclass(frozen=True)
class FoldQatConvBn(GraphPass):
    """``norm(conv(x, observe(w * s)) / s + b) -> conv(x, observe(w_folded), b_folded)``.

    The folded weight is bit for bit the weight that training rounded, except in channels with a
    gamma of 0, which become zero.

    Attributes:
        by_rsqrt: Whether to fold with ``w * (gamma * rsqrt(var + eps))`` instead, and the bias in
            single precision, as PT2E's conversion does: a few weights in a million then round to a
            different neighbour than in training.
    """

    by_rsqrt: bool = False

    name = "fold-qat-conv-bn"
    counts = "folded"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Fold around every layer that fuse-qat-conv-bn scaled."""
        nodes = {node.name: node for node in editor.graph.nodes}
        matches: set[str] = set()
        for layer in list(nodes.values()):
            note = scaled_layer_of(layer)
            if note is not None:
                _fold(editor, layer, note, nodes, by_rsqrt=self.by_rsqrt)
                editor.remark("applied", note.norm, f"into {layer.name}")
                matches.add(layer.name)
        if editor.edits:
            _rename(editor.module, matches)
            used = {str(node.target) for node in editor.module.graph.find_nodes(op="call_module")}
            for name, child in list(editor.module.named_children()):
                if isinstance(child, BatchNormScale) and name not in used:
                    delattr(editor.module, name)
            editor.drop_unused_attributes()
        return len(editor.remarks)


def _fold(
    editor: Editor, layer: Node, note: ScaledLayer, nodes: dict[str, Node], *, by_rsqrt: bool
) -> None:
    missing = [name for name in (note.weight, note.result, note.norm) if name not in nodes]
    if missing:
        message = f"{layer.name} was scaled for its batch norm, but {', '.join(missing)} is missing"
        fix = "put passes that rewrite these nodes before annotate-conv-bn"
        raise PassError(message, rule="pass-order", site=layer.name, fix=fix)
    scaled, result, norm = nodes[note.weight], nodes[note.result], nodes[note.norm]
    weight_node, scale_of_weight = (argument_value(scaled, name) for name in ("self", "other"))
    weight = editor.stored(weight_node)
    if weight is None:
        message = f"the weight of {layer.name} is no longer a constant"
        raise PassError(message, rule="computed-weight", site=layer.name)
    statistics = statistics_of(editor, norm)
    old_bias = nodes[note.bias] if note.bias else None
    scale, bias = statistics.single_precision(editor.stored(old_bias))
    if not by_rsqrt:
        scale = raw_scale(statistics.gamma, statistics.var, statistics.eps)
        bias = statistics.fold_bias(editor.stored(old_bias))
    bias = bias.to(weight.dtype).detach()
    _require_finite(bias, norm)
    folded = scale_channels(weight.detach(), scale.detach(), layer)
    editor.replace(scaled, editor.changed_constant(weight_node, folded, before=scaled))
    _take_over(layer, norm)
    counters = _counters(norm)
    editor.replace(norm, layer)
    editor.erase_unused(result, scale_of_weight)
    for counter in counters:
        editor.erase(counter)
    _put_bias(editor, layer, old_bias, bias, weight_node)
    del layer.meta[KEY]


def _require_finite(bias: Tensor, norm: Node) -> None:
    if not bool(torch.isfinite(bias).all()):
        raise CalibrationError(
            f"{norm.name} has NaN or infinity among its statistics or parameters, so the training "
            "diverged",
            rule="not-finite",
            site=norm.name,
            fix="go back to an earlier checkpoint",
        )


def _rename(module: GraphModule, matches: set[str]) -> None:
    """Rename each match to its present template: the same name without a batch norm."""
    for node, annotation in annotated(module.graph):
        if annotation.match in matches:
            label = annotation.template.replace("_bn", "", 1)
            set_annotation(node, replace(annotation, template=label))


def _counters(norm: Node) -> list[Node]:
    """Return the unused nodes that count the batches of ``norm``, last first."""
    owner = str(argument_value(norm, "running_mean").target).rpartition(".")[0]
    found = norm.graph.find_nodes(op="call_function", target=COUNTS)
    counters = [(node, counter_of(node)) for node in reversed(found)]
    return [node for node, of in counters if of and str(of.target).rpartition(".")[0] == owner]


def _put_bias(editor: Editor, layer: Node, old: Node | None, value: Tensor, weight: Node) -> None:
    """Give ``layer`` its folded bias, through the observer of its bias if there is one."""
    placed = argument_value(layer, "bias")
    if isinstance(placed, Node) and placed.op == "call_module":
        stand_in = placed.all_input_nodes[0]
        target = str(weight.target).rpartition(".")[0] + ".bias" if old is None else str(old.target)
        bias = editor.constant(target, value, like=weight, before=placed)
        placed.replace_input_with(stand_in, bias)
        editor.erase_unused(stand_in)
        return
    if isinstance(placed, Node):
        set_argument(layer, "bias", None)
        editor.erase_unused(placed)
    set_bias(editor, layer, old, value, weight)


def _take_over(layer: Node, norm: Node) -> None:
    """Move the meta of the batch norm's result to ``layer``, which now yields that result."""
    layer.meta["val"] = norm.meta.get("val", layer.meta.get("val"))
    own, other = annotation_of(layer), annotation_of(norm)
    if own is None or other is None:
        set_annotation(layer, own or other)
        return
    joined = replace(
        own,
        output=other.output,
        shares=(*own.shares, *other.shares),
        groups=(*own.groups, *other.groups),
        is_output=other.is_output,
    )
    set_annotation(layer, joined)
